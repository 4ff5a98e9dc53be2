"""The console in a real browser: how people use it, and what it shows when something is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from .console import MODEL, TOKEN_MODEL, Console, ConsolePage

PPM = 340 + 6 * np.sin(np.arange(30) / 4).reshape(-1, 1)
VIEWS = {  # the address, and a text of the complete view
    "sessions": (f"#/models/{MODEL}/sessions?prefix=pump-000", "10 sessions"),
    "session": (f"#/models/{MODEL}/sessions/looked-at", "norm "),
    "compare": (f"#/models/{MODEL}/sessions/looked-at/compare/looked-at%2Fwhat-if", "No difference"),
    "models": ("#/models", "takes new sessions"),
    "now": ("#/now", "Calls to the store"),
}


def test_a_session_among_ten_thousand_is_found_opened_and_seen_to_move(page: ConsolePage, console: Console) -> None:
    page.page.keyboard.press("/")
    page.page.keyboard.type("pump-98")
    rows = page.page.locator("table.sessions tbody tr")
    expect(rows).to_have_count(100)
    expect(page.page.get_by_text("100 sessions", exact=True).last).to_be_visible()
    page.page.keyboard.type("76")
    expect(rows).to_have_count(1)
    page.page.keyboard.press("ArrowDown")
    expect(page.page.get_by_role("link", name="pump-9876", exact=True)).to_be_focused()
    page.page.keyboard.press("Enter")
    expect(page.heading("pump-9876")).to_be_focused()
    expect(page.page.get_by_text("No step yet. Steps appear here as they come.")).to_be_visible()

    session = console.session("pump-9876")
    session.step(PPM)
    expect(page.step()).to_have_text("30")
    drawn = page.line("Inputs").get_attribute("d")
    session.step([351.25])
    expect(page.step()).to_have_text("31")
    expect(page.value("Inputs")).to_have_text("351.3")
    assert page.line("Inputs").get_attribute("d") != drawn
    expect(page.page.get_by_role("img", name=re.compile("State h, 64 units: min .* norm"))).to_be_visible()


def test_more_are_loaded_and_an_id_that_is_typed_whole_is_opened(page: ConsolePage) -> None:
    rows = page.page.locator("table.sessions tbody tr")
    expect(rows).to_have_count(100)
    page.button("Load more").click()
    expect(rows).to_have_count(200)
    page.page.get_by_role("searchbox").fill("pump-0042")
    page.page.keyboard.press("Enter")
    expect(page.heading("pump-0042")).to_be_visible()
    page.page.evaluate("history.back()")
    expect(page.page.get_by_role("searchbox")).to_have_value("pump-0042")


def test_sessions_of_all_models_are_found_together(page: ConsolePage, console: Console) -> None:
    console.session("in-both")
    console.client.session("in-both", model=TOKEN_MODEL)
    page.go("#/sessions?prefix=in-both")
    expect(page.page.locator("table.sessions td.model")).to_have_text([MODEL, TOKEN_MODEL])
    page.page.get_by_label("Model").select_option(TOKEN_MODEL)
    expect(page.page.locator("table.sessions tbody tr")).to_have_count(1)
    expect(page.page.locator("table.sessions td.model")).to_be_hidden()


@pytest.mark.parametrize(
    ("session", "shown"),
    [
        ("odd <img src=x onerror=alert(1)>", "odd <img src=x onerror=alert(1)>"),
        ("odd </script><script>alert(1)</script>", "odd </script><script>alert(1)</script>"),
        ("odd \u202e71-pmup", r"odd \u{202e}71-pmup"),
        ("odd pump\u200b-17", r"odd pump\u{200b}-17"),
        ("odd \0\n\u00a0\U000e0041", r"odd \u{0}\u{a}\u{a0}\u{e0041}"),
        ("odd \u65e5\u672c\u8a9e \U0001f600 \u00e4", "odd \u65e5\u672c\u8a9e \U0001f600 \u00e4"),
    ],
    ids=["markup", "script", "direction", "invisible", "control", "printable"],
)
def test_an_id_is_shown_as_it_is_and_cannot_look_like_another(
    page: ConsolePage, console: Console, session: str, shown: str
) -> None:
    console.session(session)
    page.go("#/sessions?prefix=odd%20")
    link = page.page.get_by_role("link", name=shown, exact=True)
    expect(link).to_have_text(shown)
    link.click()
    expect(page.heading(shown)).to_be_visible()
    page.button("Delete…").click()
    expect(page.page.get_by_role("dialog", name=f"Delete {shown}?", exact=True)).to_be_visible()
    page.button("Delete").click()
    expect(page.page.get_by_text(f"{shown} is deleted.").first).to_be_visible()


def test_an_empty_search_says_what_to_do(page: ConsolePage) -> None:
    page.page.get_by_role("searchbox").fill("nowhere")
    expect(page.page.get_by_text("No session of co2 begins with “nowhere”.")).to_be_visible()
    page.expected.append("status of 404")
    page.go(f"#/models/{MODEL}/sessions/nowhere")
    expect(page.page.get_by_text("There is no session nowhere.")).to_be_visible()
    expect(page.page.get_by_role("link", name="Look for it in the sessions")).to_be_visible()


def test_a_peek_and_a_forecast_change_nothing(page: ConsolePage, console: Console) -> None:
    session = console.session("looked-ahead")
    session.step(PPM)
    page.open("looked-ahead")
    page.page.get_by_label("co2_ppm", exact=True).fill("352,5")
    page.button("Peek").click()
    expect(
        page.page.get_by_text("co2_ppm: got “352,5”, expected a number, NaN, Infinity or -Infinity.")
    ).to_be_visible()
    page.page.get_by_label("co2_ppm", exact=True).fill("352.5")
    page.button("Peek").click()
    expect(page.page.get_by_text("At step 30")).to_be_visible()
    peeked = session.peek([352.5])[0]
    shown = page.page.locator("table.values").get_by_role("cell").first
    assert float(shown.inner_text()) == pytest.approx(peeked, rel=1e-5)

    page.page.get_by_label("Forecast ahead").check()
    ahead = page.page.get_by_label("Outputs", exact=True).locator("path.ahead").first
    expect(ahead).to_have_attribute("d", re.compile(r"^M[^L]*(L[^L]*){24}$"))  # from the last step on
    assert console.client.session_info("looked-ahead", model=MODEL).position == session.position


def test_a_peek_of_tokens_shows_the_likeliest(page: ConsolePage, console: Console) -> None:
    session = console.client.session("sentence", model=TOKEN_MODEL)
    session.step([3, 1, 4])
    page.open("sentence", TOKEN_MODEL)
    page.page.get_by_label("token", exact=True).fill("30")
    page.button("Peek").click()
    expect(page.page.get_by_text("token: got “30”, expected a whole number below 30.")).to_be_visible()
    page.page.get_by_label("token", exact=True).fill("15")
    page.button("Peek").click()
    likeliest = [f"prediction[{token}]" for token in np.argsort(-session.peek([15])[0])[:12]]
    expect(page.page.locator("table.values").get_by_role("rowheader")).to_have_text(likeliest)
    expect(page.page.get_by_text("Shown: the first 12 of 30 outputs.")).to_be_visible()


def test_a_fork_is_compared_with_its_source(page: ConsolePage, console: Console) -> None:
    session = console.session("forked")
    session.step(PPM)
    page.open("forked")
    page.button("Fork as what-if…").click()
    page.button("Fork").click()
    expect(page.heading("Side by side")).to_be_visible()
    session.step([341.0])
    verdict = page.page.locator(".note")
    page.page.get_by_label("co2_ppm", exact=True).fill("341")
    page.button("Step it").click()
    expect(verdict).to_contain_text(re.compile(r"No difference: equal in every step that both logs have, \d+ to 30\."))
    session.step([342.0])
    page.page.get_by_label("co2_ppm", exact=True).fill("400")
    page.button("Step it").click()
    expect(verdict).to_have_text("They first differ at step 31, in the input.")
    expect(page.page.locator("line.differs").first).to_be_attached()
    assert console.session("forked/what-if").position.step == 32


def test_a_generation_is_shown_whole_on_request(page: ConsolePage, console: Console) -> None:
    session = console.session("named")
    page.open("named")
    generation = session.generation.hex()
    page.button(f"generation {generation[:8]}").click()
    session.step(PPM)
    expect(page.step()).to_have_text("30")
    expect(page.button(f"generation {generation}")).to_have_text(generation)


def test_reset_and_delete_ask_by_name(page: ConsolePage, console: Console) -> None:
    session = console.session("ended")
    session.step(PPM)
    page.open("ended")
    page.button("Reset…").click()
    expect(page.page.get_by_role("dialog", name="Reset ended?")).to_be_visible()
    page.page.keyboard.press("Escape")
    expect(page.page.get_by_role("dialog")).to_have_count(0)
    expect(page.button("Reset…")).to_be_focused()
    expect(page.step()).to_have_text("30")
    page.button("Reset…").click()
    page.button("Reset").click()
    expect(page.step()).to_have_text("0")
    page.button("Delete…").click()
    expect(page.page.get_by_role("dialog", name="Delete ended?")).to_be_visible()
    page.button("Delete").click()
    expect(page.heading("Sessions")).to_be_visible()
    page.page.get_by_role("searchbox").fill("ended")
    expect(page.page.get_by_text("No session of co2 begins with “ended”.")).to_be_visible()


def test_who_goes_elsewhere_while_a_session_is_deleted_stays_there(page: ConsolePage, console: Console) -> None:
    console.session("left")
    page.open("left")
    held: list[Route] = []
    page.page.route("**/sessions/left?generation=*", lambda route: held.append(route))
    page.button("Delete…").click()
    with page.page.expect_request("**/sessions/left?generation=*"):
        page.button("Delete").click()
    page.go("#/now")
    expect(page.heading("Now")).to_be_visible()
    held[0].continue_()
    expect(page.page.get_by_text("left is deleted.").first).to_be_visible()
    expect(page.page.get_by_role("dialog")).to_have_count(0)
    assert page.page.evaluate("location.hash") == "#/now"
    page.page.unroute("**/sessions/left?generation=*")


def test_a_session_that_somebody_deletes_is_said_to_be_gone(page: ConsolePage, console: Console) -> None:
    session = console.session("taken-away")
    page.open("taken-away")
    session.delete()
    expect(page.page.get_by_text("There is no session taken-away.")).to_be_visible()
    console.session("taken-away").step(PPM)
    expect(page.step()).to_have_text("30")


def test_several_are_deleted_at_once_by_the_keyboard(page: ConsolePage, console: Console) -> None:
    console.client.group(["bulk-1", "bulk-2", "bulk-3", "bulk/ü%2F 4"], model=MODEL)
    page.page.keyboard.press("/")
    page.page.keyboard.type("bulk")
    expect(page.page.locator("table.sessions tbody tr")).to_have_count(4)
    page.page.get_by_label("Select all that are shown").check()
    page.page.get_by_label("Select bulk-2").uncheck()
    page.button("Delete 3 sessions…").click()
    expect(page.page.get_by_role("dialog").get_by_text("bulk/ü%2F 4")).to_be_visible()
    page.button("Delete 3 sessions").click()
    expect(page.page.locator("table.sessions tbody tr")).to_have_count(1)
    expect(page.page.get_by_role("link", name="bulk-2", exact=True)).to_be_visible()


def test_sessions_are_carried_over(page: ConsolePage, console: Console) -> None:
    current, before = (model for model in console.client.models() if model.name == MODEL)
    names = [f"old-{number}" for number in range(5)]
    console.client.group(names, model=MODEL)
    console.client.carry_over("reset", model=MODEL, sessions=names, fingerprint=before.fingerprint)
    page.go(f"#/models/{MODEL}/sessions?prefix=old-")
    expect(page.page.get_by_text("replaced", exact=True)).to_have_count(5)
    page.go(f"#/models/{MODEL}")
    page.button("Carry sessions over…").click()
    page.page.get_by_label("Only ids that begin with").fill("old-")
    page.button("Carry over").click()
    told = "Done. 5 checked: 5 carried over, 0 belonged to it already, 0 refused."
    expect(page.page.get_by_text(told)).to_be_visible()
    assert console.client.session_info("old-3", model=MODEL).fingerprint == current.fingerprint


def test_a_wrong_token_is_refused_in_the_servers_words(browser: Browser, console: Console) -> None:
    context = browser.new_context()
    page = ConsolePage(context.new_page(), console)
    page.page.goto(console.url)
    page.page.get_by_label("Token", exact=True).fill("guessed")
    page.button("Use token").click()
    expect(page.page.get_by_role("dialog").get_by_text("The server refused the token:")).to_be_visible()
    page.page.get_by_label("Token", exact=True).fill(console.reader)
    page.button("Use token").click()
    expect(page.page.locator("table.sessions tbody tr")).to_have_count(100)
    page.open("pump-0007")
    expect(page.button("Delete…")).to_be_disabled()
    assert page.page.evaluate("Object.values(localStorage).concat(Object.values(sessionStorage)).join()") == ""
    assert console.reader not in page.page.content()
    assert page.complaints == []
    context.close()


def test_a_server_that_is_killed_is_waited_for(page: ConsolePage, console: Console) -> None:
    page.expected += ["Failed to load resource: net::ERR_", "WebSocket connection to"]
    session = console.session("outlives")
    session.step(PPM)
    page.open("outlives")
    expect(page.step()).to_have_text("30")
    typed = page.page.get_by_label("co2_ppm", exact=True).first
    typed.fill("351.5")
    console.server.kill()
    expect(page.page.get_by_text("connecting", exact=True)).to_be_visible()
    expect(page.page.get_by_text("The server does not answer. This page keeps trying.")).to_be_visible()
    console.server.restart()
    expect(page.page.get_by_text("live", exact=True)).to_be_visible()
    expect(page.page.get_by_text("The server does not answer. This page keeps trying.")).to_have_count(0)
    expect(typed).to_have_value("351.5")
    session.step([345.0])
    expect(page.step()).to_have_text("31")
    expect(page.value("Inputs")).to_have_text("345")


def test_a_field_that_somebody_is_in_is_left_alone(page: ConsolePage, console: Console) -> None:
    """A step of the session comes between selecting a value and typing another."""
    session = console.session("typed-in")
    session.step(PPM)
    page.open("typed-in")
    field = page.page.get_by_label("co2_ppm", exact=True).first
    expect(field).not_to_have_value("")
    field.select_text()
    session.step([351.25])
    expect(page.value("Inputs")).to_have_text("351.3")
    page.page.keyboard.insert_text("341")
    expect(field).to_have_value("341")


@pytest.fixture
def looked_at(page: ConsolePage, console: Console) -> Iterator[Page]:
    """A page whose views all have something to show."""
    session = console.session("looked-at")
    session.step(PPM)
    copy = session.fork("looked-at/what-if")
    yield page.page
    copy.delete()
    session.delete()


def show(page: Page, view: str) -> None:
    page.evaluate("hash => { location.hash = hash }", VIEWS[view][0])
    page.get_by_text(VIEWS[view][1]).first.wait_for()


def serious(page: Page, where: str) -> list[str]:
    """Returns what axe finds in both themes. In the dark one it checks only colours, as all else is the same."""
    found = []
    for dark in (False, True):
        page.emulate_media(color_scheme="dark" if dark else "light")
        expect(page.locator(f"html[data-theme={'dark' if dark else 'light'}]")).to_be_attached()
        rules = {"runOnly": ["color-contrast"]} if dark else {}
        faults = Axe().run(page, options={"resultTypes": ["violations"], **rules}).response["violations"]
        found += [
            f"{where}, {dark=}: {fault['id']} ({fault['impact']}) at {node['target']}: {node['failureSummary']}"
            for fault in faults
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]
    return found


def test_axe_finds_no_serious_fault_in_any_view(looked_at: Page) -> None:
    found = []
    for view in VIEWS:
        show(looked_at, view)
        found += serious(looked_at, view)
    show(looked_at, "session")
    looked_at.get_by_role("button", name="Fork as what-if…").click()
    found += serious(looked_at, "dialog")
    assert found == []


def test_nothing_scrolls_sideways_at_400_pixels(looked_at: Page) -> None:
    looked_at.set_viewport_size({"width": 400, "height": 800})
    for view in VIEWS:
        show(looked_at, view)
        assert looked_at.evaluate("document.documentElement.scrollWidth") == 400, view


def test_values_that_differ_are_written_differently(page: ConsolePage) -> None:
    texts = page.page.evaluate("""async () => {
        const { exact, integer, duration } = await import("/console/format.js");
        return [exact(Math.fround(344.57623)), exact(0.1), exact("NaN"), exact(3), integer("9007199254740993"),
                duration(90_000_000), duration(8_000), duration(10)];
    }""")
    expected = ["344.57623", "0.1", "NaN", "3", "9,007,199,254,740,993", "1 d 1 h", "8 s", "under 1 s"]
    assert texts == expected


def test_the_first_difference_is_that_of_the_values_as_they_came(page: ConsolePage) -> None:
    found = page.page.evaluate("""async () => {
        const { History, firstDifference } = await import("/console/history.js");
        const history = (inputs, outputs) => {
            const made = new History();
            const position = { generation: "a", step: 5 + inputs.length };
            made.add({ position, first: 5, inputs, outputs: { y: outputs } }, "y");
            return made;
        };
        const one = history([1, "NaN", "9007199254740993"], [1, 2, 3]);
        return [firstDifference(one, history([1, "NaN", "9007199254740993", 4], [1, 2, 3, 4])),
                firstDifference(one, history([1, "NaN", "9007199254740992"], [1, 2, 3])),
                firstDifference(one, history([1, "NaN", "9007199254740993"], [1, 5, 3])),
                firstDifference(one, history([1, "NaN", "9007199254740993"], []))];  // not known is not different
    }""")
    assert found == [None, {"step": 7, "what": "input"}, {"step": 6, "what": "output"}, None]


def test_a_history_forgets_what_its_store_lost_and_what_is_long_past(page: ConsolePage) -> None:
    left = page.page.evaluate("""async () => {
        const { History } = await import("/console/history.js");
        const history = new History();
        const position = (step, generation = "a") => ({ generation, step });
        history.add({ position: position(9), first: 5, inputs: [[1], [2], [3], [4]] }, "y");
        const steps = () => history.list().map(({ step }) => step);
        const found = [steps()];
        history.stand(position(7));
        found.push(steps());
        history.add({ position: position(9), first: 7, inputs: [[6], [7]] }, "y");
        found.push(history.list().map(({ input }) => input[0]));
        history.stand(position(727));
        found.push(steps());
        history.stand(position(8, "b"));
        return [...found, steps()];
    }""")
    assert left == [[5, 6, 7, 8], [5, 6], [1, 2, 6, 7], [7, 8], []]


def test_steps_above_2_to_the_53_are_told_apart(page: ConsolePage, console: Console) -> None:
    session = console.session("far-on")
    session.set_state(session.state(), step=2**60 + 1)
    session.step(PPM[:3])
    page.open("far-on")
    expect(page.step()).to_have_text("1,152,921,504,606,846,980")
    page.page.get_by_text("Last values").click()
    steps = page.page.locator("table.values tbody th")
    expect(steps).to_have_text([f"1,152,921,504,606,846,{last}" for last in (979, 978, 977)])
