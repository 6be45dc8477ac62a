-- Enrollment groups, CA certificates of the provisioning service, what Resource Manager knows of it and of hubs, and what
-- a registration came from.

CREATE TABLE enrollment_group (
    id_scope TEXT NOT NULL REFERENCES provisioning_service (id_scope),
    group_key TEXT NOT NULL,
    group_id TEXT NOT NULL,
    attestation_type TEXT NOT NULL,
    etag TEXT NOT NULL,
    provisioning_status TEXT NOT NULL,
    created BIGINT NOT NULL,
    last_updated BIGINT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (id_scope, group_key)
);

-- ``name_key`` is the name in lower case; ``certificate`` base64 of DER; an empty verification code means that none was asked for.
CREATE TABLE ca_certificate (
    id_scope TEXT NOT NULL REFERENCES provisioning_service (id_scope),
    name_key TEXT NOT NULL,
    name TEXT NOT NULL,
    certificate TEXT NOT NULL,
    sha1_thumbprint TEXT NOT NULL,
    sha256_thumbprint TEXT NOT NULL,
    is_verified BIGINT NOT NULL,
    verification_code TEXT NOT NULL,
    etag TEXT NOT NULL,
    created BIGINT NOT NULL,
    last_updated BIGINT NOT NULL,
    PRIMARY KEY (id_scope, name_key)
);

-- ``document`` is JSON: location, tags and capacity, as Resource Manager's clients wrote them. An empty name is given at the next start.
ALTER TABLE provisioning_service ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE provisioning_service ADD COLUMN etag TEXT NOT NULL DEFAULT 'AAAAAAAAAAE=';
ALTER TABLE provisioning_service ADD COLUMN document TEXT NOT NULL DEFAULT '{}';

ALTER TABLE hub ADD COLUMN etag TEXT NOT NULL DEFAULT 'AAAAAAAAAAE=';
ALTER TABLE hub ADD COLUMN document TEXT NOT NULL DEFAULT '{}';
CREATE UNIQUE INDEX hub_by_host_name ON hub (host_name);

-- NULL is what was not set: such a hub has the weight 1 and applies the allocation policy. ``policy`` is that of the
-- connection string that linked the hub; ``latency``, which geo-latency allocation compares, is in microseconds.
CREATE TABLE hub_link (
    id_scope TEXT NOT NULL REFERENCES provisioning_service (id_scope),
    hub TEXT NOT NULL REFERENCES hub (name) ON DELETE CASCADE,
    policy TEXT NOT NULL,
    location TEXT NOT NULL,
    apply_allocation_policy BIGINT,
    allocation_weight BIGINT,
    latency BIGINT NOT NULL,
    PRIMARY KEY (id_scope, hub)
);

INSERT INTO hub_link (id_scope, hub, policy, location, latency)
SELECT id_scope, hub, 'iothubowner', '', 0 FROM linked_hub;

DROP TABLE linked_hub;

ALTER TABLE hub_link RENAME TO linked_hub;

-- Empty for an individual enrollment.
ALTER TABLE registration ADD COLUMN enrollment_group_id TEXT NOT NULL DEFAULT '';

CREATE INDEX registration_by_group ON registration (id_scope, enrollment_group_id, registration_key);

-- How the device attested, as its registration state shows it: a JSON object with one member.
ALTER TABLE registration ADD COLUMN attestation TEXT NOT NULL DEFAULT '{"x509":{}}';

-- The key that a TPM was challenged to use; one for each registration, replaced by the next challenge.
CREATE TABLE tpm_challenge (
    id_scope TEXT NOT NULL,
    registration_key TEXT NOT NULL,
    challenge_key TEXT NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (id_scope, registration_key)
);
