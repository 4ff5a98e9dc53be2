"""The console in a real browser: sessions are found, opened, carried over and deleted, whatever their ids."""

from __future__ import annotations

import re

import numpy as np
import pytest
from playwright.sync_api import expect

from .console import MODEL, TOKEN_MODEL, Console, ConsolePage

PPM = 340 + 6 * np.sin(np.arange(30) / 4).reshape(-1, 1)


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
