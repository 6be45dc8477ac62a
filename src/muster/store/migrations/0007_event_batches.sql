-- The events that one commit brought to a partition, as one row: hub/event_batches.py tells what is in `runs`.
CREATE TABLE event_batch (
    hub TEXT NOT NULL,
    partition BIGINT NOT NULL,
    last_sequence_number BIGINT NOT NULL,
    message_count BIGINT NOT NULL,
    next_offset BIGINT NOT NULL,
    enqueued_time BIGINT NOT NULL,
    runs {bytes} NOT NULL,
    PRIMARY KEY (hub, partition, last_sequence_number)
);

-- then: event_batches
