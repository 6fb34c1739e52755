"""The page as a reader has it: what it holds, and in a real browser what it does."""

import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dashboard.gallery import write_gallery
from storage.shards import Part
from storage.store import Store
from tests.dashboard import stores
from tests.storage.stores import write_part

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


@pytest.fixture(scope="module")
def store(real_input: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A radiograph with boxes and a heart CT with a mask, in copies that a test may remove."""
    folder = tmp_path_factory.mktemp("gallery")
    radiograph, volume = folder / "radiograph.dcm", folder / "thorax.nii.gz"
    shutil.copy(real_input("radiograph/RG1_UNCR.dcm"), radiograph)
    shutil.copy(real_input("totalsegmentator/thorax_ct.nii.gz"), volume)
    store = Store(str(folder / "store"))
    image = stores.image_row("cxr", radiograph)
    tags = stores.radiograph_tags()
    stores.write_study(store, 0, "a radiograph/1", image, stores.RADIOGRAPH_TEXT, tags=tags)
    reference = real_input("totalsegmentator/heart_heart.nii.gz")
    mask, mask_reference = stores.heart_mask(volume, reference)
    text = stores.VOLUME_TEXT
    tags = [
        stores.tag_row(text, "heart", "heart", "anatomy", grounding="mask", mask=mask_reference),
        stores.tag_row(text, "spleen", "spleen", "anatomy", reason="outside_field_of_view"),
    ]
    image = stores.image_row("ct", volume)
    stores.write_study(store, 1, "heart-ct", image, text, tags=tags, masks=[mask])
    return store


@pytest.fixture(scope="module")
def page(store: Store) -> Path:
    written = write_gallery(store)
    assert written is not None
    return written


class Document(HTMLParser):
    """The reports' text, and the elements (name, finding) with each class."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.marked: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
        self._in_text = False
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        classes = (given.get("class") or "").split()
        for name in classes:
            self.marked[name].append((tag, given.get("data-finding")))
        if tag == "div":
            self._in_text = "text" in classes
            self.texts += [""] * self._in_text

    def handle_endtag(self, tag: str) -> None:
        self._in_text = self._in_text and tag != "div"

    def handle_data(self, data: str) -> None:
        if self._in_text:
            self.texts[-1] += data


def test_each_report_without_its_tags_is_the_stored_text(page: Path) -> None:
    content = page.read_bytes().decode()  # read_text would turn the CR into LF
    assert Document(content).texts == [stores.RADIOGRAPH_TEXT, stores.VOLUME_TEXT]


def test_the_page_refers_to_nothing_outside_itself(page: Path) -> None:
    content = page.read_text(encoding="utf-8")
    references = re.findall(r"""(?:src|href|action|xlink:href)=["']([^"']*)""", content)
    assert len(references) > 5
    assert {r for r in references if not r.startswith(("#", "data:image/jpeg;base64,"))} == set()
    assert re.findall(r"url\(|@import|https?://", content) == []


def test_text_from_the_store_cannot_become_markup(page: Path) -> None:
    content = page.read_text(encoding="utf-8")
    assert "<b>&amp;" not in content
    assert "Compared &lt;with&gt; before." in content


def test_it_tells_volumes_pixels_reasons_and_who_wrote_the_report(page: Path) -> None:
    content = page.read_text(encoding="utf-8")
    assert "200, 300 – 320, 420" in content
    assert re.search(r"mask, [\d,.]+ ml", content)
    assert "It lies outside the image." in content
    assert "report written for this project" in content
    assert "research use, not for clinical decisions" in content


def test_a_page_of_the_same_content_is_left_alone_and_no_image_is_opened(
    store: Store, page: Path, tmp_path: Path
) -> None:
    shutil.copytree(store.root, tmp_path / "store")
    copy = Store(str(tmp_path / "store"))
    written = tmp_path / "store" / page.name
    first, before = written.read_bytes(), written.stat().st_mtime_ns
    images = [*page.parents[1].glob("*.dcm"), *page.parents[1].glob("*.nii.gz")]
    hidden = [image.rename(image.with_suffix(".hidden")) for image in images]
    try:
        assert write_gallery(copy) == written
        assert written.stat().st_mtime_ns == before
        stores.touch_manifest(copy, "clean", Part("showcase", "test", 0), rows_out=7)
        write_gallery(copy)
        content = written.read_text(encoding="utf-8")
        assert "no picture: <code>image_not_found</code>" in content
        assert "data:image" not in content
        assert "200, 300 – 320, 420" in content
    finally:
        for image, moved in zip(images, hidden, strict=True):
            moved.rename(image)
    written.unlink()
    stores.touch_manifest(copy, "clean", Part("showcase", "test", 0), rows_out=1)
    write_gallery(copy)
    assert written.read_bytes() == first


def test_an_image_that_is_not_the_one_grounded_is_not_shown(
    store: Store, page: Path, tmp_path: Path, real_input: Callable[[str], Path]
) -> None:
    shutil.copytree(store.root, tmp_path / "store")
    (tmp_path / "store" / page.name).unlink()
    volume = page.parents[1] / "thorax.nii.gz"
    kept = volume.read_bytes()
    shutil.copy(real_input("totalsegmentator/abdomen_crop_ct.nii.gz"), volume)
    try:
        written = write_gallery(Store(str(tmp_path / "store")))
        assert written is not None
        assert "<code>image_changed</code>" in written.read_text(encoding="utf-8")
    finally:
        volume.write_bytes(kept)


def test_a_store_without_reports_says_so(tmp_path: Path) -> None:
    written = write_gallery(Store(str(tmp_path)))
    assert written is not None
    assert "holds no grounded reports yet" in written.read_text(encoding="utf-8")


def test_a_data_set_that_is_only_ingested_is_not_shown(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write_part(store, Part("masks-alone", "train", 0), ["a"], until="ingest")
    page = write_gallery(store)
    assert page is not None
    assert "masks-alone" not in page.read_text()
    write_part(store, Part("reports", "train", 0), [])
    write_gallery(store)
    assert "masks-alone" not in page.read_text()


def test_a_bucket_has_no_gallery() -> None:
    assert write_gallery(Store("s3://bucket/store")) is None


# In a browser: the page runs its own script, then a line of the test's, then gives its DOM.


@pytest.fixture(scope="module")
def in_browser(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    if BROWSER is None:
        pytest.skip("no Chromium here to run the page in")
    browser = BROWSER

    def run(fragment: str = "", script: str = "") -> str:
        folder = tmp_path_factory.mktemp("browser")
        copy = folder / "page.html"
        content = page.read_text(encoding="utf-8")
        copy.write_text(content.replace("</body>", f"<script>{script}</script></body>"))
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
            "--disable-background-networking --disable-component-update --disable-sync "
            "--hide-scrollbars --enable-logging=stderr --virtual-time-budget=2000 --dump-dom"
        )
        command = [browser, *flags.split(), f"--user-data-dir={folder}/profile"]
        result = subprocess.run(
            [*command, f"{copy.as_uri()}{fragment}"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert "CONSOLE" not in result.stderr
        return result.stdout

    return run


def chosen(dom: str) -> set[tuple[str, str | None]]:
    """Name and finding of the elements that are marked as chosen."""
    return set(Document(dom).marked["chosen"])


def views_shown(dom: str) -> list[str]:
    return [
        re.search(r"<figcaption>([^<]*)", figure)[1]  # type: ignore[index]
        for figure in re.findall(r"<figure .*?</figure>", dom, re.DOTALL)
        if "hidden" not in figure.split(">", 1)[0]
    ]


def test_an_address_chooses_a_tag_and_what_belongs_to_it(in_browser: Callable[..., str]) -> None:
    dom = in_browser("#showcase.a%20radiograph%2F1/3")
    assert chosen(dom) == {("a", "1"), ("path", "1"), ("span", "1"), ("tr", "1")}
    assert Document(dom).marked["chosen"].count(("path", "1")) == 2
    assert len(re.findall(r'<a class="[^"]*chosen" [^>]*aria-current="true"', dom)) == 2


def test_a_click_chooses_and_a_second_click_lets_go(in_browser: Callable[..., str]) -> None:
    click = "document.querySelector('.tag[data-finding=\"2\"]').click();"
    assert chosen(in_browser(script=click)) >= {("a", "2"), ("path", "2"), ("tr", "2")}
    assert chosen(in_browser(script=click * 2)) == set()


def test_a_shape_chooses_its_phrases(in_browser: Callable[..., str]) -> None:
    click = "new MouseEvent('click', {bubbles: true})"
    dom = in_browser(script=f"document.querySelector('path.abnormality').dispatchEvent({click})")
    assert chosen(dom) == {("a", "1"), ("path", "1"), ("span", "1"), ("tr", "1")}


def test_escape_lets_go(in_browser: Callable[..., str]) -> None:
    press = "document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))"
    assert chosen(in_browser("#showcase.heart-ct/0", press)) == set()


def test_pointing_lights_up_and_tells_why_there_is_nothing(in_browser: Callable[..., str]) -> None:
    over = "new PointerEvent('pointerover', {bubbles: true})"
    dom = in_browser(script=f"document.querySelector('a.ungrounded').dispatchEvent({over})")
    assert re.search(r'<a class="tag anatomy ungrounded lit"', dom)
    tip = re.search(r'<div id="tip"([^>]*)>([^<]*)', dom)
    assert tip is not None
    assert "hidden" not in tip[1]
    assert "looked for it and found nothing" in tip[2]


def test_a_phrase_turns_the_volume_to_the_cut_that_shows_it(in_browser: Callable[..., str]) -> None:
    other = "document.querySelectorAll('.strip button')[1].click();"
    assert views_shown(in_browser(script=other))[1].startswith("Coronal")
    phrase = "document.querySelector('#showcase\\\\.heart-ct .tag').click();"
    assert views_shown(in_browser(script=other + phrase))[1].startswith("Axial")


def test_pictures_decode_and_keep_their_proportions(in_browser: Callable[..., str]) -> None:
    script = (
        "for (const image of document.images) image.loading = 'eager';"
        "addEventListener('load', () => { for (const image of document.images) {"
        "const box = image.getBoundingClientRect();"
        "image.alt = [image.naturalWidth > 300, box.width, box.height].join(' '); } })"
    )
    sizes = re.findall(r'alt="true ([\d.]+) ([\d.]+)"', in_browser(script=script))
    shown = [float(width) / float(height) for width, height in sizes if float(width)]
    assert shown == pytest.approx([1841 / 1955, 233 / 167], rel=0.01)


def test_on_a_phone_nothing_sticks_out(in_browser: Callable[..., str], page: Path) -> None:
    measure = "parent.postMessage(document.documentElement.scrollWidth, '*')"
    framed = page.with_name("framed.html")
    content = page.read_bytes().decode()
    framed.write_text(content.replace("</body>", f"<script>{measure}</script></body>"))
    frame = (
        "addEventListener('message', (event) => { document.title = event.data; });"
        "const frame = document.createElement('iframe'); frame.style.width = '375px';"
        f"frame.style.border = 0; frame.src = '{framed.as_uri()}'; document.body.append(frame)"
    )
    assert "<title>375</title>" in in_browser(script=frame)
