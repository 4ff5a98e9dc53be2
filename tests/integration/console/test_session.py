"""The page of one session: its steps as they come, peeks, forecasts, forks, reset and delete."""

from __future__ import annotations

import re

import numpy as np
import pytest
from playwright.sync_api import Route, expect

from .console import MODEL, TOKEN_MODEL, Console, ConsolePage

PPM = 340 + 6 * np.sin(np.arange(30) / 4).reshape(-1, 1)


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


def test_steps_above_2_to_the_53_are_told_apart(page: ConsolePage, console: Console) -> None:
    session = console.session("far-on")
    session.set_state(session.state(), step=2**60 + 1)
    session.step(PPM[:3])
    page.open("far-on")
    expect(page.step()).to_have_text("1,152,921,504,606,846,980")
    page.page.get_by_text("Last values").click()
    steps = page.page.locator("table.values tbody th")
    expect(steps).to_have_text([f"1,152,921,504,606,846,{last}" for last in (979, 978, 977)])
