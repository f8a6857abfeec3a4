"""What all widgets of the course have in common: JavaScript without network, checked traits, a still picture."""

from __future__ import annotations

import base64
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from elf.checks import require_integer, require_number


class Refused(ValueError, traitlets.TraitError):
    """A value that a widget does not take: a ValueError to its user, and to traitlets a reason to roll back."""


class Checked(traitlets.TraitType[Any, Any]):
    """A synced trait each of whose values, the first and any set later, goes through `check(name, value)`.

    What the check returns is kept; a ValueError or TypeError of it becomes `Refused`, and the old value stays.
    """

    def __init__(self, check: Callable[[str, Any], Any], default: Any) -> None:
        super().__init__(default)
        self.check = check
        self.tag(sync=True)

    def validate(self, obj: Any, value: Any) -> Any:
        """Called by traitlets for every new value."""
        try:
            return self.check(str(self.name), value)
        except (ValueError, TypeError) as error:
            raise Refused(str(error)) from error


def text(name: str, value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}; it should be a text")
    return value


def texts(name: str, value: Any) -> list[str]:
    """A list of strings."""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise ValueError(f"{name} is {value!r}; it should be a list of texts")
    return [text(f"{name}[{index}]", entry) for index, entry in enumerate(value)]


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; it should be True or False")
    return value


def whole(name: str, value: Any) -> int:
    """0, 1, 2, ... (and no larger than a number in JavaScript can be told from the next)."""
    number = require_integer(name, value, least=0)
    if number > 2**53:
        raise ValueError(f"{name} is {number}; it should be at most 2^53")
    return number


def number(name: str, value: Any) -> float:
    """A finite number."""
    found = require_number(name, value)
    if not math.isfinite(found):
        raise ValueError(f"{name} is {found}; it should be finite")
    return found


def record(name: str, value: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """A dict that has these keys at least."""
    if not isinstance(value, dict) or not set(keys) <= set(value):
        found = list(value) if isinstance(value, dict) else value
        raise ValueError(f"{name} is {found!r}; it should be a dict with {', '.join(keys)}")
    return value


def records(name: str, value: Any, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """A list of such dicts."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{name} is {value!r}; it should be a list")
    return [record(f"{name}[{index}]", entry, keys) for index, entry in enumerate(value)]


class Widget(anywidget.AnyWidget):
    """An anywidget whose output also holds a PNG and words, for readers whose page shows no widgets.

    GitHub, nbviewer and printed pages show the picture; JupyterLab and the book prefer the widget.

    Bad arguments, and bad values set later, are a ValueError in Python, and the old values stay. Values that only fit
    together are set together, in `with widget.hold_trait_notifications():`. Bad state that reaches the browser another
    way (an edited notebook, a page's JSON) is answered there, by a message in place of the figure.
    """

    module_name: str
    """The JavaScript file beside this one, without its suffix; `mount.js` finds the widget by it on a plain page."""

    alt: Any
    """What the widget shows, in words."""

    @abstractmethod
    def still(self) -> bytes:
        """The widget as it stands, as a PNG."""

    def fit(self, state: dict[str, Any]) -> None:
        """Raise a ValueError where values that are sound one by one do not fit together."""

    def proposed(self, proposal: Any) -> Any:
        """What a subclass's `@traitlets.validate(...)` returns: the new value, once it fits the others."""
        state = {name: getattr(self, name) for name, trait in self.traits().items() if isinstance(trait, Checked)}
        try:
            self.fit({**state, proposal["trait"].name: proposal["value"]})
        except ValueError as error:
            raise Refused(str(error)) from error
        return proposal["value"]

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle = super()._repr_mimebundle_(**kwargs)
        assert bundle is not None, "a widget without a view"
        data, metadata = bundle
        picture = base64.b64encode(self.still()).decode("ascii")
        alt = str(self.alt)
        return {**data, "text/plain": alt, "image/png": picture}, {**metadata, "image/png": {"alt": alt}}
