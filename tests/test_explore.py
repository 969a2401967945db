"""The figures to explore: what is built, and how they answer to pointer and keyboard."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from importlib import resources

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from th_utils.build import explore
from th_utils.build.layout import Layout, find_root
from th_utils.results import Results, gather, save_table

ROOT = find_root()
MAP, CUBE = explore.PAGES
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


def channel_table() -> Results:
    """Three layers of two heads: 2.1 opens, 0.0.1 is its best component, 1.0 has no neighbours."""
    names = (
        "kind", "writer_layer", "writer_head", "component", "reader_layer", "reader_head", "score",
        "z", "effect",
    )  # fmt: skip
    rows = [
        ("Q", 0, 0, 1, 2, 1, 0.9, 5.0, 0.01),
        ("Q", 1, 1, 0, 2, 1, 0.5, 3.0, 0.25),
        ("K", 0, 1, 2, 2, 1, 0.4, 2.0, None),
        ("V", 0, 0, 0, 1, 1, 0.3, 1.0, 0.02),
    ]
    meta = dict(
        layers=3, heads=2, rank=4, random_level=0.1, roles={"mover": [[2, 1]], "induction": []},
        source="measured", open=[2, 1], kept={},
    )  # fmt: skip
    return Results({name: [row[i] for row in rows] for i, name in enumerate(names)}, meta)


def cube_table() -> Results:
    """Lists of two, searched at four points and run twice; lists of three, only run."""
    names = ("what", "length", "axis 1", "axis 2", "axis 3", "item", "share", "chosen", "left_out")
    rows = [
        ("set", 2, -10.0, 1.0, 2.0, 1, 0.75, "1", None),
        ("set", 2, 10.0, 1.0, 2.0, 2, 1.0, "2", None),
        ("set", 2, 10.0, -1.0, 2.0, 2, 0.5, "", None),
        ("set", 2, 10.0, -1.0, -2.0, 2, 0.5, "", None),
        ("itself", 2, -5.0, 0.5, 0.0, 1, None, "", 1),
        ("itself", 2, 5.0, 0.5, 0.0, 1, None, "", 2),
        ("itself", 3, 1.0, 0.5, 0.0, 3, None, "", 3),
    ]
    meta = dict(names=["9.0.0", "9.0.1", "8.1.0"], reached={"2": 0.625})
    return Results({name: [row[i] for row in rows] for i, name in enumerate(names)}, meta)


TABLES = {MAP.name: channel_table(), CUBE.name: cube_table()}


def chapter(page: explore.Page):
    """An executed notebook that shows the page's still picture."""
    record = {"id": page.still, "alt": "A finding."}
    output = new_output(
        "display_data",
        {"image/png": base64.b64encode(PICTURE).decode()},
        metadata={"talking_heads": {"figure": record}},
    )
    made = new_notebook(cells=[new_code_cell("draw()", outputs=[output])])
    made.metadata["figures"] = [nbformat.from_dict(record | {"caption": "What it\nshows."})]
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A build that has run: its layout, with the tables among its results."""
    root = tmp_path_factory.mktemp("project")
    (root / "book").symlink_to(ROOT / "book")
    layout = Layout(root, edition="toy")
    for page in explore.PAGES:
        provenance = gather("toy", "random", {"size": "quick"}, None)
        save_table(TABLES[page.name], page.table, provenance, layout.results)
    return layout


def built(page, layout, target, chapters=None) -> str:
    (target / "book").mkdir(parents=True, exist_ok=True)
    chapters = [chapter(page)] if chapters is None else chapters
    return explore.parts(layout, chapters, target)[f"explore_{page.name}"]()


# --- what is built


@pytest.mark.parametrize("page", explore.PAGES, ids=lambda page: page.name)
def test_a_book_without_a_run_has_the_picture_and_says_what_is_missing(page, tmp_path):
    text = built(page, Layout(tmp_path / "nothing"), tmp_path)
    assert (tmp_path / "book" / f"explore_{page.name}.png").read_bytes() == PICTURE
    assert ":alt: A finding." in text and f"{{numref}}`{page.still}`" in text
    assert "What it shows." in text
    assert page.table in text and "make book" in text
    assert "<script" not in text and "<button" not in text
    assert not (tmp_path / "extra").exists()


def test_an_edition_without_the_chapter_says_so(tmp_path):
    text = built(MAP, Layout(tmp_path / "nothing"), tmp_path, chapters=[])
    assert "did not run on this edition" in text and "{image}" not in text


@pytest.mark.parametrize("page", explore.PAGES, ids=lambda page: page.name)
def test_a_run_brings_scripts_data_and_words(page, run, tmp_path):
    text = built(page, run, tmp_path)
    folder = tmp_path / "extra" / explore.SCRIPTS
    installed = resources.files("plotly") / "package_data" / "plotly.min.js"
    assert (folder / "plotly.min.js").read_bytes() == installed.read_bytes()
    for name in re.search(r'data-scripts="([^"]*)"', text)[1].split():
        assert (tmp_path / "book" / name.replace("../", "../extra/", 1)).resolve().is_file(), name
    for name in re.findall(r'(?:src|href)="\.\./([^"]*)"', text):
        assert (tmp_path / "extra" / name).is_file(), name
    # Only the small script that waits for the button comes with the page.
    assert re.findall(r"<script[^>]*>", text) == ['<script defer src="../explore/explore.js">']
    assert "make book" not in text and "edition toy at size quick" in text


def test_scripts_are_not_where_every_page_loads_them():
    """Jupyter Book adds every script below `_static` to every page."""
    everywhere = {path.name for path in (ROOT / "book" / "_static").rglob("*")}
    assert not everywhere & {path.name for path in (ROOT / "book" / "_explore").iterdir()}


def data(page, run, tmp_path):
    built(page, run, tmp_path)
    text = (tmp_path / "extra" / explore.SCRIPTS / f"{page.name}.data.js").read_text()
    start = f"window.exploreData.{page.name} = "
    assert text.startswith(start) and text.endswith(";\n")
    return json.loads(text[len(start) : -2])


def test_the_map_is_given_every_pair(run, tmp_path):
    given, c = data(MAP, run, tmp_path), TABLES["channels"].columns
    found = []
    for kind, own in given["kinds"].items():
        for i in range(len(own["writer"])):
            writer, reader = divmod(own["writer"][i], 2), divmod(own["reader"][i], 2)
            rest = [own[name][i] for name in ("score", "z", "effect")]
            found.append((kind, *writer, own["component"][i], *reader, *rest))
    assert found == list(zip(*c.values(), strict=True))
    assert given["roles"] == {"5": "mover"} and given["open"] == 5
    assert set(given["colours"]) == {"Q", "K", "V"}


def test_the_cube_is_given_points_and_prompts(run, tmp_path):
    given = data(CUBE, run, tmp_path)
    assert given["lengths"]["2"]["set"]["x"] == [-10.0, 10.0, 10.0, 10.0]
    assert given["lengths"]["2"]["set"]["chosen"] == ["1", "2", "", ""]
    assert given["lengths"]["2"]["itself"] == {
        "x": [-5.0, 5.0], "y": [0.5, 0.5], "z": [0.0, 0.0], "item": [1, 1], "left_out": [1, 2],
    }  # fmt: skip
    assert set(given["lengths"]["3"]) == {"itself"}


def test_the_map_in_words():
    text = explore.channels_in_words(TABLES["channels"])
    assert "What head 2.1 is most open to" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert rows == [
        "| query | 0.0.1 | 0.900 | 5.0 | 0.010 |",
        "| query | 1.1.0 | 0.500 | 3.0 | 0.250 |",
        "| key | 0.1.2 | 0.400 | 2.0 | not measured |",
    ]


def test_the_cube_in_words():
    rows = [x for x in explore.lists_in_words(TABLES["lists"]).splitlines() if x.startswith("| ")]
    assert rows[2:] == ["| 2 | 25, 75 | 63% | 50% |", "| 3 | not set |  | 100% |"]


# --- how they answer

BARE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>T</title></head>
<body><main>{body}</main></body></html>"""
# Said while a cube is drawn: by the library, of how it letters the axes; by the driver, where
# pictures are drawn by the processor.
TOLERATED = ("willReadFrequently", "GL Driver Message")


@pytest.fixture
def opened(browser, run, tmp_path):
    """Open a page's figure by its button, as `opened(page, width=..., dark=...)`."""
    from browsing import Reader

    reader = Reader(browser, tmp_path / "extra")

    def open_(page: explore.Page, **options):
        text = built(page, run, tmp_path)
        body = text[text.index("<link") : text.rindex("</script>") + len("</script>")]
        (tmp_path / "extra" / "book").mkdir(exist_ok=True)
        where = f"book/explore_{page.name}.html"
        (tmp_path / "extra" / where).write_text(BARE.format(body=body))
        tab = reader.open(where, **options)
        tab.get_by_role("button", name=page.button).click()
        tab.wait_for_selector(".explore[data-ready]", timeout=60_000)
        return tab

    yield open_
    reader.close()
    assert [said for said in reader.wrong if not any(word in said for word in TOLERATED)] == []


def status(tab) -> str:
    return tab.locator(".explore [role=status]").text_content()


def at(tab, plot: str, x: float, y: float) -> tuple[float, float]:
    """Where the point of a plane plot is in the window."""
    box = tab.locator(plot).bounding_box()
    inside = tab.evaluate(
        """([plot, x, y]) => {
            const { xaxis, yaxis } = document.querySelector(plot)._fullLayout;
            return [xaxis._offset + xaxis.d2p(x), yaxis._offset + yaxis.d2p(y)];
        }""",
        [plot, x, y],
    )
    return box["x"] + inside[0], box["y"] + inside[1]


CHANNEL_PLOT = ".explore-plot[role=application]"


@pytest.mark.chromium
def test_nothing_is_loaded_before_it_is_asked_for(browser, run, tmp_path):
    from browsing import Reader

    text = built(MAP, run, tmp_path)
    (tmp_path / "extra" / "book").mkdir(exist_ok=True)
    (tmp_path / "extra" / "book" / "page.html").write_text(
        BARE.format(body=text[text.index("<link") : text.rindex("</script>") + 9])
    )
    reader = Reader(browser, tmp_path / "extra")
    tab = reader.open("book/page.html")
    assert tab.evaluate("typeof Plotly") == "undefined"
    assert "Loads 4.8 MB" in status(tab)
    tab = reader.open("book/page.html", script=False)
    assert tab.locator("noscript p").is_visible()
    assert not tab.get_by_role("button").is_visible()
    # A file that is gone is said to be gone.
    (tmp_path / "extra" / "explore" / "channels.data.js").unlink()
    tab = reader.open("book/page.html")
    tab.get_by_role("button", name=MAP.button).click()
    tab.get_by_text("Not loaded: ../explore/channels.data.js").wait_for()
    reader.close()


@pytest.mark.chromium
def test_the_map_answers_to_the_pointer(opened):
    tab = opened(MAP)
    assert status(tab).startswith("Head 2.1 (mover): 3 components shown that it reads")
    assert "highest 0.0.1 → query of 2.1: score 0.900" in status(tab)
    tab.mouse.move(*at(tab, CHANNEL_PLOT, 0, 0))
    tab.locator(f"{CHANNEL_PLOT} .hovertext").wait_for()
    hover = tab.locator(f"{CHANNEL_PLOT} .hovertext").text_content()
    assert "0.0.1 → query of 2.1: score 0.900, standard score 5.0, effect 0.010" in hover
    tab.mouse.click(*at(tab, CHANNEL_PLOT, 1, 1))
    tab.wait_for_function("document.querySelector('.explore select').value === '3'")
    assert status(tab).startswith("Head 1.1: 1 components shown that it reads")
    assert "1 readings of its own (highest 1.1.0 → query of 2.1" in status(tab)


@pytest.mark.chromium
@pytest.mark.parametrize("width", [320, 360])
def test_a_label_lies_inside_of_a_narrow_map(opened, width):
    tab = opened(MAP, width=width, height=740)
    tab.locator(CHANNEL_PLOT).scroll_into_view_if_needed()
    for layer, head, says in ((0, 0, "0.0.1"), (0, 1, "0.1.2"), (1, 1, "1.1.0"), (2, 1, "chosen")):
        tab.mouse.move(*at(tab, CHANNEL_PLOT, layer, head))
        label = tab.locator(f"{CHANNEL_PLOT} .hovertext").filter(has_text=says)
        label.wait_for()
        outer = tab.locator(CHANNEL_PLOT).bounding_box()
        inner = label.locator("text").last.bounding_box()
        for side, length in (("x", "width"), ("y", "height")):
            assert inner[side] >= outer[side], says
            assert inner[side] + inner[length] <= outer[side] + outer[length], says


@pytest.mark.chromium
def test_the_map_answers_to_the_keyboard(opened):
    tab = opened(MAP)
    chooser = tab.get_by_label("Head", exact=True)
    assert chooser.evaluate("e => e === document.activeElement")
    plot = tab.locator(CHANNEL_PLOT)
    plot.focus()
    for key, head in (
        ("ArrowUp", "2.0"),
        ("ArrowUp", "2.0"),  # no further than the first head
        ("ArrowLeft", "1.0"),
        ("ArrowDown", "1.1"),
        ("ArrowLeft", "0.1"),
        ("ArrowLeft", "0.1"),
    ):
        plot.press(key)
        tab.wait_for_timeout(100)
        assert status(tab).startswith(f"Head {head}"), key
    chooser.select_option(label="2.1 (mover)")
    assert status(tab).startswith("Head 2.1 (mover)")
    tab.get_by_role("button", name="choose head 1.1").press("Enter")
    tab.wait_for_timeout(100)
    assert status(tab).startswith("Head 1.1")


@pytest.mark.chromium
def test_the_map_is_filtered_by_kind_and_score(opened):
    tab = opened(MAP)
    table = tab.get_by_role("table", name="What 2.1 reads")
    assert table.get_by_role("row").count() == 4
    tab.get_by_label("query").uncheck()
    assert table.get_by_role("row").all_inner_texts()[1].split() == (
        "0.1.2 0.1 key 0.400 2.0 not measured".split()
    )
    tab.get_by_label("query").check()
    tab.get_by_label("Score at least").fill("0.6")
    assert table.get_by_role("row").count() == 2
    assert "1 components shown that it reads" in status(tab)
    tab.get_by_label("Score at least").fill("0")
    tab.get_by_label("Tables by").select_option("effect")
    assert table.get_by_role("row").nth(1).inner_text().startswith("1.1.0")


def turned(tab) -> dict:
    return tab.evaluate("document.querySelector('.explore-cube').layout.scene.camera.eye")


@pytest.mark.chromium
def test_the_cube_is_turned_by_keys_and_by_hand(opened):
    tab = opened(CUBE)
    cube = tab.locator(".explore-cube")
    assert cube.is_visible(), "WebGL is off in this browser"
    first = turned(tab)
    cube.focus()
    cube.press("ArrowRight")
    tab.wait_for_timeout(200)
    right = turned(tab)
    assert right["z"] == pytest.approx(first["z"]) and right["x"] != pytest.approx(first["x"])
    cube.press("ArrowUp")
    tab.wait_for_timeout(200)
    assert turned(tab)["z"] > right["z"]
    tab.get_by_role("button", name="as at first").click()
    tab.wait_for_timeout(200)
    assert turned(tab) == pytest.approx(first)
    cube.scroll_into_view_if_needed()
    box, turn = cube.bounding_box(), cube.get_attribute("data-turn")
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(*middle)
    tab.mouse.down()
    tab.mouse.move(middle[0] + 80, middle[1], steps=8)
    tab.mouse.up()
    # The library says so when the hand has let go.
    tab.wait_for_function(f"document.querySelector('.explore-cube').dataset.turn !== '{turn}'")
    by_hand = turned(tab)
    assert by_hand["x"] != pytest.approx(first["x"], abs=0.05)
    cube.focus()
    cube.press("ArrowUp")  # goes on from where the hand left it
    tab.wait_for_timeout(200)
    assert turned(tab)["z"] > by_hand["z"]
    across = [math.atan2(eye["y"], eye["x"]) for eye in (turned(tab), by_hand)]
    assert across[0] == pytest.approx(across[1])


@pytest.mark.chromium
@pytest.mark.parametrize("width", [320, 1280])
def test_the_cube_is_not_cut_off(opened, width):
    """At first and turned upward: nothing but the page's colour along the edges."""
    tab = opened(CUBE, width=width)
    cube = tab.locator(".explore-cube")
    for _ in range(5):
        cube.evaluate("e => e.blur()")  # without the outline
        drawn = Image.open(io.BytesIO(cube.screenshot())).convert("RGB")
        right, bottom = drawn.width - 1, drawn.height - 1
        for edge in (
            (0, 0, right, 1),
            (0, bottom, right, bottom + 1),
            (0, 0, 1, bottom),
            (right, 0, right + 1, bottom),
        ):
            assert len(drawn.crop(edge).getcolors()) == 1, (turned(tab), edge)
        cube.press("ArrowUp")
        tab.wait_for_timeout(200)


@pytest.mark.chromium
def test_the_slider_changes_the_length_of_the_list(opened):
    tab = opened(CUBE)
    slider = tab.get_by_label("Items in the list")
    assert slider.get_attribute("aria-valuetext") == "2 items"  # the longest that was searched
    assert "4 points of the grid" in status(tab) and "63% of the places" in status(tab)
    shown = "document.querySelector('.explore-cube').data.map(t => t.x.length)"
    assert tab.evaluate(shown) == [4, 2]
    tab.get_by_label("nothing set").uncheck()
    assert tab.evaluate(shown) == [4]
    tab.get_by_label("nothing set").check()
    slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "3 items"
    assert "nothing was set at this length" in status(tab)
    assert tab.locator(".explore-key li").count() == 3
    assert tab.evaluate(shown) == [1]


def hindrances(tab) -> list[tuple[str, str]]:
    """What axe finds in the figure that is serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    # Style sheets are not fetched a second time: a browser refuses that for files on the disk.
    found = Axe().run(tab, context=".explore", options={"preload": False}).response["violations"]
    found = [one for one in found if one["impact"] in ("serious", "critical")]
    return [(one["id"], one["nodes"][0]["html"][:120]) for one in found]


@pytest.mark.chromium
@pytest.mark.parametrize("page", explore.PAGES, ids=lambda page: page.name)
def test_on_a_telephone_and_in_the_dark(opened, page):
    tab = opened(page, width=360, height=740, dark=True)
    assert tab.evaluate("document.scrollingElement.scrollWidth") <= 360
    assert hindrances(tab) == []


@pytest.mark.chromium
@pytest.mark.parametrize("page", explore.PAGES, ids=lambda page: page.name)
def test_the_page_in_the_book(book_page, page):
    """The book of the committed notebooks has the picture; one of a run, the figure as well."""
    tab = book_page(f"book/explore_{page.name}.html")
    picture = tab.locator("main img").first
    picture.scroll_into_view_if_needed()
    assert picture.evaluate("async image => (await image.decode(), image.naturalWidth)") > 300
    button = tab.get_by_role("button", name=page.button)
    assert button.count() == 1 or tab.get_by_text("make book").count() == 1
