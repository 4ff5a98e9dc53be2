"""What the page says when the server refuses the token, or does not answer."""

from __future__ import annotations

import numpy as np
from playwright.sync_api import Browser, expect

from .console import Console, ConsolePage

PPM = 340 + 6 * np.sin(np.arange(30) / 4).reshape(-1, 1)


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
