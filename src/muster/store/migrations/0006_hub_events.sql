-- Events of a hub beside telemetry (hub-service.md 9.5): JSON of which are written to its log.
ALTER TABLE hub ADD COLUMN event_settings TEXT NOT NULL DEFAULT '{}';

-- The sequence number of the last connection state event; it grows with each connect and disconnect.
ALTER TABLE connection ADD COLUMN state_sequence BIGINT NOT NULL DEFAULT 0;
