"""The app's page, made with Gradio."""

import tempfile
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from visattn.errors import InputError
from visattn.overlay.heatmap import colour_strip
from visattn.tasks.app.readers import Answer, Reader, Seen, draw, scale

THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.orange,
    neutral_hue=gr.themes.colors.slate,
    radius_size=gr.themes.sizes.radius_lg,
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],  # on the reader's machine, not fetched
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
).set(body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_400")  # legible on the background
_ALONE = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}  # events that run the model
_STOPS = 24  # colours from which the scale is interpolated
_QUICK = {"api_visibility": "private", "show_progress": "hidden"}


class _Parts(NamedTuple):
    """The components that a photograph or an answer changes, in the order of an event's outputs.

    Attributes:
        of_photo: what is wrong with the photograph.
        of_text: what is wrong with what the user typed.
        seen: the photograph, as the reader's `look` returns it.
        answer: the answer shown.
        result: the column with the map.
        more: the column with what else can be done.
        picture: the photograph under the map.
        scale: of the map's colours.
        says: the answer in words.
        steps: the steps to choose from.
        remark: a line about the chosen step.
        choices: the answers to choose from.
        files: to download.
    """

    of_photo: Any
    of_text: Any
    seen: Any
    answer: Any
    result: Any
    more: Any
    picture: Any
    scale: Any
    says: Any
    steps: Any
    remark: Any
    choices: Any
    files: Any


def build(reader: Reader, folder: Path) -> gr.Blocks:
    """The page.

    Args:
        reader: the model.
        folder: for the files that users download.
    """
    with gr.Blocks(title=f"visattn · {reader.name}", analytics_enabled=False) as page:
        gr.HTML(f"<h1>visattn</h1><p><b>{escape(reader.name)}</b> {escape(reader.purpose)}</p>", elem_id="head")
        with gr.Row(elem_id="areas"):  # laid out by page.css
            with gr.Column(elem_id="given"):
                photo = gr.Image(
                    type="filepath",
                    sources=["upload", "webcam", "clipboard"],
                    label="Photograph",
                    show_label=False,
                    height=420,
                    elem_id="photo",
                    buttons=["fullscreen"],
                    webcam_options=gr.WebcamOptions(mirror=False),
                    placeholder="Drop a photograph here\n– or –\nClick to choose one",
                )
                # Files go to `load_image` as they are. Gradio would decode them itself, without checks and sentences.
                photo.preprocess = _path  # (a subclass would do, but Gradio writes a stub beside its source file)
                of_photo = gr.HTML(elem_id="of-photo", elem_classes="note")
            with gr.Column(visible=False, elem_id="result") as result:
                picture = gr.Image(
                    interactive=False,
                    label="Map",
                    show_label=False,
                    format="png",
                    height=420,
                    elem_id="map",
                    buttons=["download", "fullscreen"],
                )
                scale = gr.HTML(elem_id="scale")
                says = gr.HTML(elem_id="says")
                steps = gr.Radio([], label=reader.steps, elem_id="steps", elem_classes="pills")
                remark = gr.HTML(elem_id="remark")
            with gr.Column(visible=False, elem_id="more") as more:
                choices = gr.Radio([], label=reader.choices, elem_id="choices", elem_classes="lines")
                with gr.Row(visible=reader.asks is not None, elem_id="asks"):
                    label, example, verb = reader.asks or ("", "", "")
                    typed = gr.Textbox(label=label, placeholder=example, max_lines=1, elem_id="typed", max_length=600)
                    ask = gr.Button(verb, elem_id="ask", size="md", scale=0, min_width=80)
                of_text = gr.HTML(elem_id="of-text", elem_classes="note")
                prepare = gr.Button(f"Prepare {reader.files}", elem_id="prepare", size="md")
                files = gr.File(file_count="multiple", label="Files", visible=False, interactive=False, elem_id="files")
        seen, answer = gr.State(), gr.State()
        parts = _Parts(
            of_photo, of_text, seen, answer, result, more, picture, scale, says, steps, remark, choices, files
        )
        changed = list(parts)

        photo.change(partial(_look, reader), photo, changed, show_progress_on=photo, **_ALONE)
        over = {"show_progress_on": picture, **_ALONE}
        choices.input(partial(_choose, reader), [seen, choices], changed, **over)
        gr.on([typed.submit, ask.click], partial(_read, reader), [seen, typed], changed, **over)
        steps.input(_step, [seen, answer, steps], [picture, scale, remark], trigger_mode="always_last", **_QUICK)
        prepare.click(partial(_files, reader, folder), [seen, answer], [of_text, files], **over)
    return page


def serve(page: gr.Blocks, host: str, port: int) -> str:
    """Serve the page until `page.close()`, to this machine or to others if the host is an address that they reach.

    Returns:
        The page's address.
    """
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        max_file_size="64mb",
        theme=THEME,
        css_paths=[Path(__file__).with_name("page.css")],
        js=Path(__file__).with_name("page.js").read_text(encoding="utf-8"),
    )
    return address


def _path(payload: Any) -> str | None:
    return None if payload is None else payload.path


def _wrong(error: InputError) -> str:
    said = str(error)
    return f'<p role="alert">{escape(said[:1].upper() + said[1:])}.</p>'


def _look(reader: Reader, path: str | None) -> _Parts:
    said = ""
    if path is not None:
        try:
            seen = reader.look(Path(path))
            numbered = list(zip(seen.choices, range(len(seen.choices)), strict=True))
            listed = gr.update(choices=numbered, value=0, visible=len(numbered) > 1)
            return _shown(seen, reader.choose(seen, 0), listed)
        except InputError as error:
            said = _wrong(error)
    hidden, nothing = gr.update(visible=False), gr.skip()
    return _Parts(said, "", None, None, hidden, hidden, *[nothing] * 7)


def _choose(reader: Reader, seen: Seen, number: int) -> _Parts:
    return _shown(seen, reader.choose(seen, number), gr.skip())


def _read(reader: Reader, seen: Seen, text: str) -> _Parts:
    try:
        return _shown(seen, reader.read(seen, text), gr.update(value=None))
    except InputError as error:
        return _Parts(*(gr.skip() for _ in _Parts._fields))._replace(of_text=_wrong(error))


def _shown(seen: Seen, answer: Answer, choices: Any) -> _Parts:
    said = f"<b>{escape(answer.text)}</b> <span>{escape(answer.score)}</span>" if answer.text else ""
    said += f"<p>{escape(answer.note)}</p>" if answer.note else ""
    steps = gr.update(choices=list(zip(answer.steps, range(len(answer.steps)), strict=True)), value=0)
    picture, scale, remark = _step(seen, answer, 0)
    shown, none = gr.update(visible=True), gr.update(value=None, visible=False)
    return _Parts("", "", seen, answer, shown, shown, picture, scale, said, steps, remark, choices, none)


def _step(seen: Seen, answer: Answer, step: int) -> tuple[Any, str, str]:
    number = min(step, len(answer.steps) - 1)  # of an answer that is being replaced
    name, remark = answer.steps[number], answer.remarks[number]
    picture = gr.update(value=draw(seen, answer, number), alt_text=f"The photograph under the map of {name}")
    return picture, _scale(seen, answer, number), f"<p><b>{escape(name)}</b> {escape(remark)}</p>"


def _scale(seen: Seen, answer: Answer, step: int) -> str:
    meaning, high, note = scale(seen, answer, step)
    colours = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in colour_strip(_STOPS)[0])
    strip = f'<i style="background: linear-gradient(90deg, {colours})"></i>'
    said = f"<p>{escape(meaning)} <span>0</span>{strip}<span>{escape(high)}</span></p>"
    return said + (f"<p>{escape(note)}</p>" if note else "")


def _files(reader: Reader, folder: Path, seen: Seen, answer: Answer) -> tuple[str, Any]:
    try:
        paths = reader.write(seen, answer, Path(tempfile.mkdtemp(dir=folder)))
    except InputError as error:
        return _wrong(error), gr.skip()
    return "", gr.update(value=list(map(str, paths)), visible=True)
