"""Fixtures are modules, one for each thing they provide; this only names them, a module after those it imports."""

from hypothesis import HealthCheck, settings

# How long an example takes says more of the machine than of the code, and benchmarks are elsewhere.
settings.register_profile("muster", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("muster")

pytest_plugins = [
    "tests.support.fix_server",
    "tests.support.fix_clients",
    "tests.support.fix_checks",
    "tests.support.fix_node",
    "tests.support.fix_services",
    "tests.support.fix_amqp",
    "tests.support.fix_amqp_devices",
    "tests.support.fix_mqtt",
    "tests.support.fix_rest",
    "tests.support.fix_arm",
    "tests.support.fix_replay",
    "tests.support.fix_ca_commands",
]
