-- Every hub row is keyed by hub, every DPS row by id scope. Times are microseconds since 1970 UTC; documents are JSON text.

CREATE TABLE hub (
    name TEXT NOT NULL PRIMARY KEY,
    host_name TEXT NOT NULL,
    partition_count BIGINT NOT NULL,
    created BIGINT NOT NULL
);

CREATE TABLE hub_policy (
    hub TEXT NOT NULL REFERENCES hub (name),
    name TEXT NOT NULL,
    primary_key TEXT NOT NULL,
    secondary_key TEXT NOT NULL,
    rights TEXT NOT NULL,
    PRIMARY KEY (hub, name)
);

-- Devices have module_id ''. ``etag`` is the decimal counter that Azure shows in base64.
CREATE TABLE identity (
    hub TEXT NOT NULL REFERENCES hub (name),
    device_id TEXT NOT NULL,
    module_id TEXT NOT NULL,
    generation_id TEXT NOT NULL,
    etag BIGINT NOT NULL,
    status TEXT NOT NULL,
    status_reason TEXT,
    status_updated BIGINT NOT NULL,
    authentication_type TEXT NOT NULL,
    primary_key TEXT,
    secondary_key TEXT,
    primary_thumbprint TEXT,
    secondary_thumbprint TEXT,
    iot_edge BIGINT NOT NULL,
    device_scope TEXT,
    parent_scopes TEXT,
    managed_by TEXT,
    created BIGINT NOT NULL,
    PRIMARY KEY (hub, device_id, module_id)
);

-- Who is connected where. A row stays after a disconnect: it carries the times that the registry shows.
CREATE TABLE connection (
    hub TEXT NOT NULL,
    device_id TEXT NOT NULL,
    module_id TEXT NOT NULL,
    session_id TEXT,
    connected BIGINT NOT NULL,
    connection_state_updated BIGINT NOT NULL,
    last_activity BIGINT NOT NULL,
    PRIMARY KEY (hub, device_id, module_id)
);

CREATE TABLE twin (
    hub TEXT NOT NULL,
    device_id TEXT NOT NULL,
    module_id TEXT NOT NULL,
    etag BIGINT NOT NULL,
    version BIGINT NOT NULL,
    model_id TEXT NOT NULL,
    tags TEXT NOT NULL,
    desired TEXT NOT NULL,
    desired_metadata TEXT NOT NULL,
    desired_version BIGINT NOT NULL,
    reported TEXT NOT NULL,
    reported_metadata TEXT NOT NULL,
    reported_version BIGINT NOT NULL,
    PRIMARY KEY (hub, device_id, module_id)
);

-- The next sequence number of each partition. The row is the lock under which events of a partition are appended.
CREATE TABLE event_partition (
    hub TEXT NOT NULL REFERENCES hub (name),
    partition BIGINT NOT NULL,
    next_sequence_number BIGINT NOT NULL,
    next_offset BIGINT NOT NULL,
    PRIMARY KEY (hub, partition)
);

-- One row is a complete event: all stamps, system and application properties apart (hub-device.md 4.3, hub-service.md 8.7).
CREATE TABLE event (
    hub TEXT NOT NULL,
    partition BIGINT NOT NULL,
    sequence_number BIGINT NOT NULL,
    event_offset BIGINT NOT NULL,
    enqueued_time BIGINT NOT NULL,
    source TEXT NOT NULL,
    device_id TEXT NOT NULL,
    module_id TEXT NOT NULL,
    generation_id TEXT NOT NULL,
    authentication_method TEXT NOT NULL,
    model_id TEXT NOT NULL,
    system_properties TEXT NOT NULL,
    application_properties TEXT NOT NULL,
    body {bytes} NOT NULL,
    PRIMARY KEY (hub, partition, sequence_number)
);

CREATE TABLE provisioning_service (
    id_scope TEXT NOT NULL PRIMARY KEY,
    host_name TEXT NOT NULL,
    allocation_policy TEXT NOT NULL,
    created BIGINT NOT NULL
);

CREATE TABLE provisioning_policy (
    id_scope TEXT NOT NULL REFERENCES provisioning_service (id_scope),
    name TEXT NOT NULL,
    primary_key TEXT NOT NULL,
    secondary_key TEXT NOT NULL,
    rights TEXT NOT NULL,
    PRIMARY KEY (id_scope, name)
);

CREATE TABLE linked_hub (
    id_scope TEXT NOT NULL REFERENCES provisioning_service (id_scope),
    hub TEXT NOT NULL REFERENCES hub (name),
    apply_allocation_policy BIGINT NOT NULL,
    allocation_weight BIGINT NOT NULL,
    PRIMARY KEY (id_scope, hub)
);

-- ``registration_key`` is the registration id in lower case: ids compare case-insensitively and keep their spelling (dps.md 4.2).
CREATE TABLE individual_enrollment (
    id_scope TEXT NOT NULL REFERENCES provisioning_service (id_scope),
    registration_key TEXT NOT NULL,
    registration_id TEXT NOT NULL,
    etag TEXT NOT NULL,
    provisioning_status TEXT NOT NULL,
    created BIGINT NOT NULL,
    last_updated BIGINT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (id_scope, registration_key)
);

-- One record per registration id; it survives its enrollment (dps.md 10, 6). ``context`` is what a restart needs to finish an *assigning* row.
CREATE TABLE registration (
    id_scope TEXT NOT NULL REFERENCES provisioning_service (id_scope),
    registration_key TEXT NOT NULL,
    registration_id TEXT NOT NULL,
    operation_id TEXT NOT NULL,
    status TEXT NOT NULL,
    substatus TEXT,
    created BIGINT NOT NULL,
    last_updated BIGINT NOT NULL,
    etag TEXT NOT NULL,
    assigned_hub TEXT,
    device_id TEXT,
    error_code BIGINT,
    error_message TEXT,
    payload TEXT,
    context TEXT NOT NULL,
    PRIMARY KEY (id_scope, registration_key)
);

CREATE INDEX registration_by_status ON registration (status);

-- ``scope`` is the id scope or the hub that refused; ``subject_key`` the registration or device id in lower case.
CREATE TABLE report (
    tracking_id TEXT NOT NULL PRIMARY KEY,
    scope TEXT NOT NULL,
    service TEXT NOT NULL,
    subject_key TEXT NOT NULL,
    time BIGINT NOT NULL,
    document TEXT NOT NULL
);

CREATE INDEX report_by_time ON report (time);
CREATE INDEX report_by_subject ON report (subject_key, time);
