-- What Resource Manager knows of a hub beside its policies: CA certificates, whose columns are those of ``ca_certificate``, and
-- consumer groups of its event log.

CREATE TABLE hub_certificate (
    hub TEXT NOT NULL REFERENCES hub (name),
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
    PRIMARY KEY (hub, name_key)
);

-- ``name_key`` is the name in lower case. ``$Default``, which every hub has, is not kept.
CREATE TABLE consumer_group (
    hub TEXT NOT NULL REFERENCES hub (name),
    name_key TEXT NOT NULL,
    name TEXT NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (hub, name_key)
);
