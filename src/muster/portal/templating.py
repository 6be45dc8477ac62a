"""The portal's templates: everything is escaped, an unknown name is an error, and text of devices is made visible.

Not here: what a page shows.
"""

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from muster.domain.message import Event
from muster.domain.report import Report
from muster.domain.timestamp import iso_utc
from muster.pki.certificate import utc_text
from muster.portal import display


class Templates:
    """Renders pages and rows. ``static_address`` maps the name of a static file to where it is served."""

    def __init__(self, static_address: Callable[[str], str]) -> None:
        self._environment = Environment(
            loader=PackageLoader("muster.portal"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals["static"] = static_address
        self._environment.filters.update(
            visible=display.visible,
            pretty=display.pretty_json,
            moment=_moment,
            second=_second,
            listed=_listed,
        )

    def render(self, template: str, **context: Any) -> str:
        """The HTML of a page."""
        return self._environment.get_template(template).render(context)

    def arrival_rows(self, events: list[Event]) -> str:
        """Table rows of device-to-cloud messages."""
        return self._rows("arrival_rows", [display.arrival(event) for event in events])

    def refusal_rows(self, reports: list[Report]) -> str:
        """Table rows of reports."""
        return self._rows("refusal_rows", [display.refusal(report) for report in reports])

    def _rows(self, macro: str, rows: list[Any]) -> str:
        return str(getattr(self._environment.get_template("rows.html").module, macro)(rows))


def _moment(microseconds: int) -> Markup:
    """A time with its milliseconds."""
    return Markup('<time datetime="{}">{}</time>').format(iso_utc(microseconds), display.clock_time(microseconds))


def _listed(microseconds: int) -> Markup:
    """A time of whole seconds in a column that says it is UTC."""
    text = display.second_time(microseconds).removesuffix(" UTC")
    return Markup('<time datetime="{}">{}</time>').format(iso_utc(microseconds), text)


def _second(microseconds: int | None) -> Markup | str:
    """A time of whole seconds; a certificate's may be unreadable."""
    if microseconds is None:
        return "cannot be read"
    return Markup('<time datetime="{}">{}</time>').format(utc_text(microseconds), display.second_time(microseconds))
