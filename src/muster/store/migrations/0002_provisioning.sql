-- Enrollment groups, CA certificates of the provisioning service, latencies of hubs, and what a registration came from.

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

-- In microseconds; what geo-latency allocation compares.
ALTER TABLE linked_hub ADD COLUMN latency BIGINT NOT NULL DEFAULT 0;

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
