"""The code of the page, as it runs in the browser: how values are written, what a history keeps."""

from __future__ import annotations

from .console import ConsolePage


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
