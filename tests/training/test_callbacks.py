"""What watches a run: lines in a file, a bar in a terminal, a time limit."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
import time

import pytest
import torch
from toy_training import SETTINGS, toy_model, train

from elf.training import ProgressBar, TimeLimit, TrainState, callbacks
from elf.viz.live_curve import LiveCurve


def test_protocol_and_state():
    seen = []

    class Watch:
        def start(self, state):
            seen.append(("start", state.step))

        def __call__(self, state):
            assert state.steps == 60
            assert state.seconds > 0
            assert state.seconds_left >= 0
            assert state.loss == state.record.history[-1]["loss"]
            assert state.lr == state.record.history[-1]["lr"]
            assert state.model.training
            assert not state.ema_model.training
            seen.append((state.step, len(state.record.history)))

        def finish(self, state):
            seen.append(("finish", state.step))

    train(callbacks=[Watch()])
    assert seen == [("start", 0), *((i, i) for i in range(1, 61)), ("finish", 60)]


def test_finish_is_told_of_a_failure():
    def fail(state):
        raise RuntimeError("no")

    told = []

    class Watch:
        def __call__(self, state):
            pass

        def finish(self, state):
            told.append(state.step)

    with pytest.raises(RuntimeError, match="no"):
        train(callbacks=[Watch(), fail])
    assert told == [1]


def test_time_limit():
    record = train(
        dataclasses.replace(SETTINGS, steps=100_000, warmup_steps=0),
        callbacks=[TimeLimit(0.2), lambda s: time.sleep(0.01)],
    )
    assert 0 < record.steps <= 21
    assert record.seconds < 10
    assert not record.interrupted
    with pytest.raises(ValueError, match="seconds is 0; it should be positive"):
        TimeLimit(0)


def test_progress_in_a_file_is_a_few_plain_lines(capsys):
    train(callbacks=[ProgressBar("toy", lines=3)])
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert [re.match(r"toy: step (\d+)/60, loss [\d.]+", line)[1] for line in lines] == ["20", "40", "60"]
    assert "left" in lines[0]
    assert "left" not in lines[-1]
    assert "\r" not in out


def test_progress_in_a_terminal_is_one_bar_on_stdout(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    train(callbacks=[ProgressBar("toy")])
    out, err = capsys.readouterr()
    assert err == ""
    assert "60/60" in out
    assert "loss" in out


def test_only_the_first_process_shows_progress(capsys):
    state = TrainState(SETTINGS, toy_model(), None, rank=1, distributed=True)
    for watch in (ProgressBar("toy"), LiveCurve()):
        watch.start(state)
        watch(state)
        watch.finish(state)
    assert capsys.readouterr().out == ""


def test_the_clock_of_a_resumed_run(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    state = TrainState(SETTINGS, toy_model(), None, rank=0, distributed=False)
    assert math.isnan(state.seconds_left)
    state.begin(20, [1.0] * 20, [float(second) for second in range(1, 21)])
    now[0] = 106.0
    for _ in range(4):
        state.end_step()
    assert state.seconds == state.ended[-1] == 20 + 6
    assert state.seconds_left == 6 / 4 * 36


def test_the_loss_of_an_unfinished_step_is_forgotten_before_it_is_read():
    """As on a GPU, where losses are fetched late."""
    state = TrainState(SETTINGS, toy_model(), None, rank=0, distributed=False)
    state.begin(2, [1.0, 2.0], [0.1, 0.2])
    state.note_loss(torch.tensor(3.0), 0.1)
    state.end_step()
    state.note_loss(torch.tensor(4.0), 0.1)
    state.forget_unfinished_step()
    state.read_losses()
    assert state.losses == [1.0, 2.0, 3.0]


def test_a_distributed_record_ends_where_losses_were_last_exchanged():
    state = TrainState(SETTINGS, toy_model(), None, rank=0, distributed=True)
    lengths = []
    for step in range(4):
        state.note_loss(torch.tensor(float(step)), 0.1)
        state.end_step()
        if step == 2:
            state.read_losses()
        lengths.append(len(state.record.history))
    assert lengths == [0, 0, 3, 3]
    assert [entry["loss"] for entry in state.record.history] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (65.0, "1:05"), (3599.6, "1:00:00"), (3665.0, "1:01:05"), (math.nan, "?"), (math.inf, "?")],
)
def test_a_time_in_words(seconds, text):
    assert callbacks._clock(seconds) == text


def test_a_time_limit_counts_from_its_start(monkeypatch):
    now = [50.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    limit, state = TimeLimit(3.0), TrainState(SETTINGS, toy_model(), None, rank=0, distributed=False)
    limit.start(state)
    for later, over in ((52.9, False), (53.0, True)):
        now[0] = later
        limit(state)
        assert state.stopping == over


def test_a_rewritten_line_is_not_rewritten_all_the_time(monkeypatch):
    """Half a second between two updates: at 10.0, 10.6 and 11.2, not at 10.4 and 11.0, and at the end."""
    now, shown = [0.0], []

    class Handle:
        def update(self, content, raw):
            shown.append(now[0])

    class Shell:
        kernel = None

    state = TrainState(SETTINGS, toy_model(), None, rank=0, distributed=False)
    bar = ProgressBar("toy", every=0.5)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr("IPython.core.getipython.get_ipython", Shell)
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: Handle())
    bar.start(state)
    for now[0] in (10.0, 10.4, 10.6, 11.0, 11.2):
        bar(state)
    now[0] = 11.3
    bar.finish(state)
    assert shown == [10.0, 10.6, 11.2, 11.3]


def test_the_bar_of_a_terminal_stands_where_the_training_stands(monkeypatch):
    bars = []

    class Bar:
        def __init__(self, total, initial, **_):
            self.total, self.n, self.closed = total, initial, False
            bars.append(self)

        def set_postfix_str(self, text, refresh):
            pass

        def update(self, more):
            self.n += more

        def close(self):
            self.closed = True

    monkeypatch.setattr(callbacks, "in_notebook", lambda: False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    state = TrainState(SETTINGS, toy_model(), None, rank=0, distributed=False)
    state.begin(12, [1.0] * 12, [0.1] * 12)
    watch = ProgressBar("toy", every=0.0)
    watch.start(state)
    for _ in range(5):
        state.end_step()
        watch(state)
        assert bars[0].n == state.step
    watch.finish(state)
    assert (bars[0].total, bars[0].n, bars[0].closed) == (60, 17, True)
