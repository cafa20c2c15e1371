"""When a GPU is idle, since when, for how many hours, and when nobody can say."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from tests.fixtures.measured import GPU, device, pod
from watchbill.agent.metrics.devices import Device, DeviceShare
from watchbill.agent.metrics.idle import IdleGpuWatch, IdleSettings
from watchbill.kinds.derivation.totals import idle_fields, idle_millionths
from watchbill.kinds.objects.objects import IdleGpus
from watchbill.kinds.objects.pod import Pod, read_pod

START = datetime(2026, 11, 23, 12, tzinfo=UTC)
POD = read_pod(pod(1, "a", limits={GPU: "1"}))
NEXT_POD = read_pod(pod(2, "b", limits={GPU: "1"}))
ROOT = "w"


class Story:
    """Scrapes every 30 seconds; each is a mapping from device to utilization."""

    def __init__(self, *, threshold: float = 0.0) -> None:
        self.watch = IdleGpuWatch(IdleSettings(threshold_percent=threshold))
        self.at = START
        self.changes = 0

    def scrape(
        self,
        percents: dict[int, float],
        *,
        times: int = 1,
        share: float = 1.0,
        root: str = ROOT,
        pods: Sequence[Pod] = (POD,),
    ) -> None:
        for _ in range(times):
            devices = {n: Device((device(n), "")) for n in percents}
            for number, percent in percents.items():
                devices[number].figures["DCGM_FI_DEV_GPU_UTIL"] = percent
            held = {
                root: [
                    DeviceShare(device, share, pod, True)
                    for device in devices.values()
                    for pod in pods
                ]
            }
            if root == "":
                held = {}
            changed = self.watch.observe(held, [device.key for device in devices.values()], self.at)
            self.changes += ROOT in changed
            self.at += timedelta(seconds=30)

    def silence(self, times: int) -> None:
        self.at += timedelta(seconds=30 * times)

    @property
    def idle(self) -> IdleGpus | None:
        return self.watch.by_workload.get(ROOT)


def gpus(story: Story) -> float | None:
    result = None if story.idle is None else story.idle.millionths
    return None if result is None else result / 1e6


def test_idle_begins_after_more_than_the_window() -> None:
    story = Story()
    story.scrape({1: 50})
    assert gpus(story) == 0
    story.scrape({1: 0}, times=11)  # the last of them at exactly five minutes
    assert gpus(story) == 0
    story.scrape({1: 0})
    assert gpus(story) == 1
    assert story.idle is not None
    assert story.idle.since == START + timedelta(seconds=30)


def test_one_busy_moment_ends_it_and_the_hours_stay() -> None:
    story = Story()
    story.scrape({1: 50})
    story.scrape({1: 0}, times=121)
    story.scrape({1: 1})
    assert gpus(story) == 0
    assert story.idle is not None
    assert story.idle.gpu_hours == pytest.approx(1.0)
    assert story.idle.since is None
    story.scrape({1: 0}, times=3)
    assert gpus(story) == 0


def test_a_new_pod_of_the_workload_begins_anew_and_the_hours_stay() -> None:
    """By hand: zero from the second scrape to the last of 121: 60 minutes of one GPU."""
    story = Story()
    story.scrape({1: 50})
    story.scrape({1: 0}, times=121)
    story.scrape({1: 0}, pods=[NEXT_POD])
    assert gpus(story) == 0, "known to have begun since the last scrape"
    assert story.idle is not None
    assert (story.idle.since, story.idle.gpu_hours) == (None, pytest.approx(1.0))
    handed_on_at = story.at - timedelta(seconds=30)
    story.scrape({1: 0}, pods=[NEXT_POD], times=11)
    assert story.idle.since == handed_on_at


def test_a_device_that_one_of_its_pods_goes_on_holding_stays_idle() -> None:
    story = Story()
    story.scrape({1: 50}, share=0.5, pods=[POD, NEXT_POD])
    story.scrape({1: 0}, share=0.5, pods=[POD, NEXT_POD], times=12)
    story.scrape({1: 0}, share=0.5, pods=[NEXT_POD])
    assert gpus(story) == 0.5
    assert story.idle is not None
    assert story.idle.since == START + timedelta(seconds=30)


def test_nothing_changes_while_it_lasts() -> None:
    story = Story()
    story.scrape({1: 50})
    story.scrape({1: 0}, times=12)
    before = story.changes
    story.scrape({1: 0}, times=500)
    assert story.changes == before == 2


def test_what_began_unobserved_is_not_known_before_the_window_has_passed() -> None:
    story = Story()
    story.scrape({1: 0}, times=11)
    assert gpus(story) is None
    story.scrape({1: 0})
    assert gpus(story) == 1
    restarted = Story()
    restarted.scrape({1: 3})
    assert gpus(restarted) == 0, "a busy device is known at once"


def test_a_device_that_comes_into_other_hands_begins_anew() -> None:
    story = Story()
    story.scrape({1: 0}, times=60, root="")
    story.scrape({1: 0}, times=2)
    assert gpus(story) == 0, "it is this holder's idleness that counts, and all of it was seen"
    story.scrape({1: 0}, times=10)
    assert gpus(story) == 1


def test_a_gap_ends_what_was_known() -> None:
    story = Story()
    story.scrape({1: 50})
    story.scrape({1: 0}, times=13)
    story.silence(10)
    story.scrape({2: 5}, root="other")
    assert gpus(story) is None
    story.scrape({1: 0}, times=11)
    assert gpus(story) is None
    story.scrape({1: 0})
    assert gpus(story) == 1
    assert story.idle is not None
    assert story.idle.gpu_hours == pytest.approx(0.1), "only what was seen counts"


def test_the_hours_outlive_a_restart_and_the_gap_of_it_is_none() -> None:
    before = START - timedelta(hours=30)
    story = Story()
    story.scrape({1: 0})
    story.watch.restore(ROOT, 12.5, before)
    story.scrape({1: 0}, times=10)
    assert gpus(story) is None, "which idles now is not known yet"
    assert story.idle is not None
    assert (story.idle.gpu_hours, story.idle.measured_since) == (12.5, before)
    story.scrape({1: 0})
    assert gpus(story) == 1
    assert story.idle.since == START
    story.scrape({1: 50})
    assert story.idle.gpu_hours == pytest.approx(12.5 + 330 / 3600)


def test_the_hours_stay_when_the_gpus_are_given_back() -> None:
    story = Story()
    story.scrape({1: 5})
    story.scrape({1: 0}, times=13)
    story.scrape({2: 5}, times=6, root="other")
    assert gpus(story) is None
    assert story.idle is not None
    assert story.idle.gpu_hours == pytest.approx(0.1)
    assert idle_millionths(story.idle, allocated=0) == 0
    assert idle_fields(story.idle, 0)["idleGpuHours"] == 0.1


def test_shares_add_up_and_hours_are_theirs() -> None:
    story = Story()
    story.scrape({1: 5, 2: 5}, share=0.5)
    story.scrape({1: 0, 2: 5}, times=4, share=0.5)
    story.scrape({1: 0, 2: 0}, times=12, share=0.5)
    assert gpus(story) == 1.0
    assert story.idle is not None
    first, second = START + timedelta(seconds=30), START + timedelta(seconds=150)
    assert story.idle.since == first
    assert story.idle.mean_since == first + (second - first) / 2
    story.scrape({1: 9, 2: 9}, share=0.5)
    assert story.idle.gpu_hours == pytest.approx(0.5 * (450 + 330) / 3600)


def test_the_threshold_can_be_set_and_noise_is_no_work() -> None:
    for percent, threshold, expected in ((0.4, 0, 1), (0.6, 0, 0), (4, 5, 1), (6, 5, 0)):
        story = Story(threshold=threshold)
        story.scrape({1: 50})
        story.scrape({1: percent}, times=13)
        assert gpus(story) == expected, (percent, threshold)


def test_nothing_is_kept_of_who_is_gone() -> None:
    story = Story()
    story.scrape({1: 50}, times=2)
    story.watch.forget(set())
    assert story.watch.by_workload == {}
    assert not story.watch._since
