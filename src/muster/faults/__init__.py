"""Fault injection, for tests of how device programs take it: a device asks for a fault by properties of a message.

Wraps the front ends of MQTT and AMQP, and the event log that the HTTPS device API stores in; without
``muster up --fault-injection`` none of them is wrapped, and the properties mean nothing.
"""
