-- What a device finds again that connects without a clean session: JSON, topic filter -> QoS granted (hub-device.md 3.10).
CREATE TABLE mqtt_session (
    hub TEXT NOT NULL,
    device_id TEXT NOT NULL,
    module_id TEXT NOT NULL,
    subscriptions TEXT NOT NULL,
    PRIMARY KEY (hub, device_id, module_id)
);
