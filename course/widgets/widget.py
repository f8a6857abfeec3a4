"""What all widgets have in common: JavaScript without network, checked traits, a still picture."""

from __future__ import annotations

import base64
import math
from abc import abstractmethod
from typing import Any

import anywidget
import traitlets

from elf.checks import require_integer, require_number, require_one_of
from elf.viz.arrays import finite


class Refused(ValueError, traitlets.TraitError):
    """A value that a widget does not take: a ValueError to its user, and to traitlets a reason to roll back."""


class Checked(traitlets.TraitType[Any, Any]):
    """A synced trait each of whose values, the first and any set later, is made `sound`; else the old value stays."""

    def __init__(self, spec: Any, default: Any) -> None:
        super().__init__(default)
        self.spec = spec
        self.tag(sync=True)

    def validate(self, obj: Any, value: Any) -> Any:
        """Called by traitlets for every new value."""
        try:
            return sound(str(self.name), value, self.spec)
        except (ValueError, TypeError, OverflowError) as error:
            raise Refused(str(error)) from error


def sound(name: str, value: Any, spec: Any) -> Any:
    """A value as its spec has it, in plain Python that JSON can carry.

    A spec is str, bool, int (0 or more) or float (finite); a tuple of the texts to choose from; the layouts of an array
    of finite numbers with "|" between them ("atoms 3", see `elf.viz.arrays.finite`), and at the end where an empty list
    will do; [spec] for a list; {key: spec} for a dict, with "key?" where it may be missing and ... for any key; or a
    function (name, value) that answers with the value.

    Raises:
        ValueError, TypeError: the value is not of that kind.
    """
    if isinstance(spec, dict):
        return _sound_dict(name, value, spec)
    if isinstance(spec, tuple):
        require_one_of(name, value, spec)
        return value
    if isinstance(spec, list):
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} is {value!r}; it should be a list")
        return [sound(f"{name}[{index}]", entry, spec[0]) for index, entry in enumerate(value)]
    if isinstance(spec, str):
        if isinstance(value, list) and not value and spec.endswith("|"):
            return []
        return finite(name, value, *spec.removesuffix("|").split("|")).tolist()
    if spec in (str, bool):
        if not isinstance(value, spec):
            raise ValueError(f"{name} is {value!r}; it should be {'a text' if spec is str else 'True or False'}")
        return value
    if spec not in (int, float):
        return spec(name, value)
    number = require_integer(name, value, least=0) if spec is int else require_number(name, value)
    # JavaScript tells whole numbers apart up to 2^53.
    if (spec is int and number > 2**53) or not math.isfinite(number):
        raise ValueError(f"{name} is {number}; it should be finite, and at most 2^53 if whole")
    return number


def _sound_dict(name: str, value: Any, spec: dict[Any, Any]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {value!r}; it should be a dict")
    spec = {f"{key}?": spec[...] for key in value} if ... in spec else spec
    made = {}
    for key, inner in spec.items():
        plain = key.removesuffix("?")
        if value.get(plain) is not None:
            made[plain] = sound(f"{name}[{plain!r}]", value[plain], inner)
        elif plain == key:
            raise ValueError(f"{name} has {list(value)}; it should have {plain!r} too")
    return made


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

    def __init__(self, **values: Any) -> None:
        if unknown := values.keys() - self.class_trait_names():
            raise TypeError(f"{type(self).__name__} takes no {', '.join(sorted(unknown))}; see its Args")
        super().__init__(**values)

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
