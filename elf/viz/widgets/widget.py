"""What all widgets of the course have in common: JavaScript without network, and a still picture that stays behind."""

from __future__ import annotations

import base64
from abc import abstractmethod
from typing import Any

import anywidget


class Widget(anywidget.AnyWidget):
    """An anywidget whose output also holds a PNG and words, for readers whose page shows no widgets.

    GitHub, nbviewer and printed pages show the picture; JupyterLab and the book prefer the widget.

    Bad arguments, and bad values set later, are a ValueError in Python. Bad state that reaches the browser another way
    (an edited notebook, a page's JSON) is answered there, by a message in place of the figure.
    """

    module_name: str
    """The JavaScript file beside this one, without its suffix; `mount.js` finds the widget by it on a plain page."""

    alt: Any
    """What the widget shows, in words."""

    @abstractmethod
    def still(self) -> bytes:
        """The widget as it stands, as a PNG."""

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle = super()._repr_mimebundle_(**kwargs)
        assert bundle is not None, "a widget without a view"
        data, metadata = bundle
        picture = base64.b64encode(self.still()).decode("ascii")
        alt = str(self.alt)
        return {**data, "text/plain": alt, "image/png": picture}, {**metadata, "image/png": {"alt": alt}}
