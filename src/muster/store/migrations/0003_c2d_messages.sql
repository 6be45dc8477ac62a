-- Queues of messages that are handed out under a lock: those for devices and modules, and a hub's feedback, which has
-- device_id '' (hub-device.md 5, hub-service.md 6.5, 6.6).

-- The row that all who enqueue share. It stays when the queue is empty, so that a sequence number is never given twice.
CREATE TABLE message_queue (
    hub TEXT NOT NULL,
    device_id TEXT NOT NULL,
    module_id TEXT NOT NULL,
    last_sequence_number BIGINT NOT NULL,
    last_enqueued BIGINT NOT NULL,
    PRIMARY KEY (hub, device_id, module_id)
);

-- lock_token NULL: Enqueued, otherwise Invisible. ``receiver`` is who had the last lock, '' after an abandon. ``due`` is
-- when something happens by itself: the lock lapses, or a message without one expires.
CREATE TABLE queued_message (
    hub TEXT NOT NULL,
    device_id TEXT NOT NULL,
    module_id TEXT NOT NULL,
    sequence_number BIGINT NOT NULL,
    generation_id TEXT NOT NULL,
    enqueued_time BIGINT NOT NULL,
    expiry BIGINT NOT NULL,
    delivery_count BIGINT NOT NULL,
    deliveries BIGINT NOT NULL,
    lock_token TEXT,
    receiver TEXT NOT NULL,
    due BIGINT NOT NULL,
    properties TEXT NOT NULL,
    body {bytes} NOT NULL,
    PRIMARY KEY (hub, device_id, module_id, sequence_number)
);

CREATE INDEX queued_message_by_due ON queued_message (due);

-- What became of a message whose sender asked, until a batch takes it.
CREATE TABLE feedback_record (
    hub TEXT NOT NULL,
    device_id TEXT NOT NULL,
    module_id TEXT NOT NULL,
    generation_id TEXT NOT NULL,
    sequence_number BIGINT NOT NULL,
    time BIGINT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (hub, device_id, module_id, generation_id, sequence_number)
);

CREATE INDEX feedback_record_by_time ON feedback_record (hub, time);

-- ``cloudToDevice`` of the hub's properties: JSON of what differs from the defaults.
ALTER TABLE hub ADD COLUMN c2d_settings TEXT NOT NULL DEFAULT '{}';
