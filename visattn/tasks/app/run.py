"""Start the app: choose the model and the place, serve the page, and clean up behind it."""

import argparse
import os
import signal
import socket
import tempfile
from pathlib import Path

from visattn.devices import choose_device
from visattn.errors import InputError
from visattn.tasks.app.readers import CaptionReader, ClassReader, Reader, TextReader
from visattn.tasks.overlay import choose_subject, refuse_library_options
from visattn.training.captioner import Captioner
from visattn.training.checkpoints import load_model
from visattn.training.classifier import Classifier

CAPTIONER = Path("captioner-flickr8k")
LOCAL = ("127.0.0.1", "localhost")


def choose_reader(options: argparse.Namespace) -> Reader:
    """The model that the command line asks for, on its device; the included captioner if it asks for none.

    Raises:
        InputError: if the model cannot be loaded or shown.
    """
    device = choose_device(options.device)
    if options.model is not None or options.timm is not None:
        subject = choose_subject(options).to(device)
        kind = ClassReader if subject.compare is None or subject.class_names else TextReader
        return kind(subject, options.model or f"timm:{options.timm}", options.precision)
    checkpoint = options.checkpoint or CAPTIONER
    refuse_library_options(options)
    model = load_model(checkpoint, Captioner, Classifier).to(device)
    if isinstance(model, Captioner):
        return CaptionReader(model, str(checkpoint), options.answers, options.precision)
    return ClassReader(model.subject(str(checkpoint)), str(checkpoint), options.precision)


def free_port(host: str, port: int) -> int:
    """The port, or any free one if it is 0.

    Raises:
        InputError: if the host is empty or not this machine's, or the port is taken or not allowed.
    """
    if not host.strip():  # which would be every address of this machine
        raise InputError("--host is empty; give an address of this machine, or 0.0.0.0 to open it to the network")
    try:
        host.encode("idna")  # where this fails, `socket` raises a TypeError
        with socket.create_server((host, port)) as server:
            return int(server.getsockname()[1])
    except (OSError, UnicodeError) as error:
        reason, *_ = str(getattr(error, "strerror", None) or error).partition(" (while attempting")
        raise InputError(f"{host}:{port} cannot be used ({reason}); choose another --port or --host") from error


def run(options: argparse.Namespace) -> None:
    """Serve the app until it is interrupted.

    Raises:
        InputError: if the options cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="visattn-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # of uploads and pictures
        port = free_port(options.host, options.port)
        reader = choose_reader(options)
        from visattn.tasks.app.page import build, serve

        page = build(reader, Path(folder))
        print(f"{reader.name}: open {serve(page, options.host, port)} (Ctrl+C ends it)", flush=True)
        if options.host not in LOCAL:
            print(f"anyone who can reach {options.host} can use it, without a password", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that photographs are deleted then, too
        try:
            page.block_thread()
        finally:
            page.close(verbose=False)
