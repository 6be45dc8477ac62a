"""MQTT 3.1.1 clients: devices of a hub, and devices that are provisioned."""
