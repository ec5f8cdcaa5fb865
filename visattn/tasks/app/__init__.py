"""`visattn app`: a page in the browser that captions or classifies photographs and shows the maps."""

import os
from importlib.util import find_spec

from visattn.errors import InputError, install


def require_gradio() -> None:
    """Check that Gradio is there, and keep it from reporting anything to its makers; it is not imported.

    Raises:
        InputError: if it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    if find_spec("gradio") is None:
        raise InputError(f"the app needs Gradio: {install('app')}")
