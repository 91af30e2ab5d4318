"""What a policy file means, and that everything wrong with one is said at once."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.policy import MAX_MERGE_M, Policy, effective_audience
from broker.errors import ConfigError
from schemas.taxonomy import Audience, Desk, Language, Urgency, default_policy_text

HEAD = """
max_overdue = 3
[advice]
nl = "Bel 112"
fr = "Appelez le 112"
en = "Call 112"
[timers]
accept_s = 90
acknowledge_s = 60
silence_s = 1800
silence_routine_s = 86400
presence_s = 900
retention_s = 604800
[widening]
factor = 2.0
max_waves = 3
max_radius_m = 3000
"""
THEFT = """
[categories.theft]
names = { nl = "Diefstal", fr = "Vol", en = "Theft" }
urgency = "urgent"
desk = "police"
priority = "p2"
radius_m = 300
merge_m = 100
merge_s = 900
audience = "police_and_nearby"
"""


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        Policy.parse(text)
    return raised.value.problems


def problem_of(text: str) -> str:
    (problem,) = problems_of(text)
    return problem


def test_shipped_policy_is_valid_and_has_every_category_of_the_issue() -> None:
    policy = Policy.parse(default_policy_text())
    urgent = {c for c in policy.codes if policy.file.categories[c].urgency is Urgency.URGENT}
    assert urgent == {
        "theft",
        "robbery",
        "burglary",
        "fight",
        "fire",
        "threat",
        "suspicious",
        "vandalism",
        "missing-person",
        "traffic-accident",
        "medical",
    }
    assert set(policy.codes) - urgent == {
        "illegal-dumping",
        "dog-fouling",
        "flyposting",
        "graffiti",
        "noise",
        "bicycle-theft",
        "street-lighting",
        "parking",
    }


def test_category_is_found_by_its_code_and_unknown_ones_are_none() -> None:
    policy = Policy.parse(HEAD + THEFT)
    theft = policy.category("theft")
    assert theft is not None
    assert theft.desk is Desk.POLICE
    assert policy.category("sorcery") is None
    assert policy.codes == ("theft",)
    assert (policy.max_overdue, policy.timers.accept_s, policy.advice.en) == (3, 90, "Call 112")


@pytest.mark.parametrize("accuracy", ["", "[accuracy]\n", "[accuracy]\nmax_presence_m = 70\n"])
def test_a_policy_that_says_no_more_has_the_settings_of_the_shipped_one(accuracy: str) -> None:
    policy, shipped = Policy.parse(HEAD + accuracy + THEFT), Policy.parse(default_policy_text())
    theft = policy.file.categories["theft"]
    assert [policy.first_radius_m(theft, accuracy_m) for accuracy_m in (0, 499, 501, 9_000)] == [
        300,
        799,
        800,
        800,
    ]
    assert policy.max_presence_accuracy_m == (70 if "70" in accuracy else 500)
    for name, value in (("alert_if_seen_within_s", 3_600), ("unattended_s", 10)):
        assert getattr(policy.timers, name) == getattr(shipped.timers, name) == value


@pytest.mark.parametrize(
    ("name", "least", "most", "beyond"),
    [("max_overdue", 1, 20, (0, 21)), ("max_waves", 1, 10, (0, 11)), ("factor", 1.01, 4, (1, 4.1))],
)
def test_each_number_of_the_ladder_has_its_bounds(
    name: str, least: float, most: float, beyond: tuple[float, float]
) -> None:
    (written,) = (line for line in HEAD.splitlines() if line.startswith(name))
    for value in (least, most):
        Policy.parse(HEAD.replace(written, f"{name} = {value}") + THEFT)
    for value in beyond:
        assert name in problem_of(HEAD.replace(written, f"{name} = {value}") + THEFT)


def test_radius_grows_by_the_factor_until_the_most_and_the_last_wave() -> None:
    policy = Policy.parse(HEAD + THEFT)
    assert policy.next_radius_m(1, 300.0) == 600.0
    assert policy.next_radius_m(2, 2000.0) == 3000.0
    assert policy.next_radius_m(3, 300.0) is None
    assert policy.next_radius_m(1, 3000.0) is None
    assert policy.next_radius_m(1, 0.0) is None


def test_audience_is_the_narrower_of_the_categorys_and_the_reports() -> None:
    theft = Policy.parse(HEAD + THEFT).category("theft")
    assert theft is not None
    assert effective_audience(theft, Audience.POLICE_AND_NEARBY) is Audience.POLICE_AND_NEARBY
    assert effective_audience(theft, Audience.POLICE) is Audience.POLICE
    quiet = Policy.parse(HEAD + THEFT.replace('"police_and_nearby"', '"police"')).category("theft")
    assert quiet is not None
    assert effective_audience(quiet, Audience.POLICE_AND_NEARBY) is Audience.POLICE


def test_everything_that_is_wrong_is_said_at_once_with_its_path() -> None:
    text = (
        HEAD.replace("max_overdue = 3", "max_overdue = 0\nmaximum = 1")
        .replace("accept_s = 90", "accept_s = 9000")
        .replace("factor = 2.0", "factor = 1.0")
        .replace('fr = "Appelez le 112"\n', "")
        + THEFT.replace("radius_m = 300", 'radius_m = "far"').replace("merge_s", "merge_sec")
        + THEFT.replace("categories.theft", 'categories."Big Theft"')
        + THEFT.replace("categories.theft", "categories.robbery").replace("p2", "p9")
        + THEFT.replace("categories.theft", "categories.fight").replace("= 100", "= 400")
    )
    starts = [
        "maximum: no such key",
        "advice.fr: missing",
        "timers.accept_s: 9000 s must be shorter",
        "widening.factor: Expected `float` > 1.0",
        "max_overdue: Expected `int` >= 1",
        'categories."Big Theft": a code is a topic level',
        "categories.theft.merge_sec: no such key; did you mean merge_s?",
        "categories.theft.merge_s: missing",
        "categories.theft.radius_m: Expected `int`, got `str`",
        "categories.robbery.priority: Invalid enum value 'p9'; one of p1, p2, p3",
        "categories.fight.merge_m: 400 is above radius_m (300)",
    ]
    problems = problems_of(text)
    missing = [start for start in starts if not any(p.startswith(start) for p in problems)]
    assert missing == []
    assert len(problems) == len(starts)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('urgency = "urgent"', 'urgency = "routine"', "radius_m: routine categories alert nobody"),
        ('desk = "police"', 'desk = "city"', "desk: urgent reports go to the police"),
        ("radius_m = 300", "radius_m = 5000", "radius_m: 5000 is above widening.max_radius_m"),
        ("radius_m = 300", "radius_m = 0", "audience: police_and_nearby needs a radius_m"),
        (
            'audience = "police_and_nearby"',
            'text_to = "police_and_nearby"',
            "text_to: police_and_nearby, but audience is police",
        ),
    ],
)
def test_contradiction_within_a_category_is_named(old: str, new: str, said: str) -> None:
    assert problem_of(HEAD + THEFT.replace(old, new)).startswith(f"categories.theft.{said}")


def test_merging_from_afar_is_refused() -> None:
    far = THEFT.replace("radius_m = 300", "radius_m = 3000").replace(
        "merge_m = 100", "merge_m = 1001"
    )
    assert f"1001 is above {MAX_MERGE_M}" in problem_of(HEAD + far)


def test_policy_without_categories_is_refused() -> None:
    assert problem_of(HEAD) == "categories: missing"
    assert "at least one" in problem_of("categories = {}\n" + HEAD)
    assert "at least one" in problem_of("categories = 3\n" + HEAD)


def test_text_that_is_not_toml_names_the_line() -> None:
    assert problem_of("[timers\n").startswith("not TOML: ")
    assert "line 3" in problem_of("a = 1\nb = 2\na = 3\n")


@given(radius_m=st.integers(0, 3_000), accuracy_m=st.floats(0, 10_000), more_m=st.floats(0, 10_000))
def test_accuracy_widens_the_first_radius_within_bounds_and_never_narrows_it(
    radius_m: int, accuracy_m: float, more_m: float
) -> None:
    policy = Policy.parse(default_policy_text())
    category = msgspec.structs.replace(policy.file.categories["fire"], radius_m=radius_m)
    first_m = policy.first_radius_m(category, accuracy_m)
    assert policy.first_radius_m(category, 0.0) == radius_m
    assert policy.first_radius_m(category, accuracy_m + more_m) >= first_m
    if radius_m:
        assert radius_m <= first_m <= min(radius_m + 500, 3_000)
        assert first_m == pytest.approx(min(radius_m + min(accuracy_m, 500), 3_000))
    else:
        assert first_m == 0.0


def test_a_policy_answers_with_what_its_file_says() -> None:
    text = default_policy_text()
    policy = Policy.parse(text)
    fire = policy.file.categories["fire"]

    assert policy.codes == tuple(policy.file.categories)
    assert (policy.advice, policy.timers) == (policy.file.advice, policy.file.timers)
    assert (policy.widening, policy.max_overdue) == (policy.file.widening, policy.file.max_overdue)
    assert policy.max_presence_accuracy_m == policy.file.accuracy.max_presence_m
    assert policy.category("fire") is fire
    assert policy.category("nonsense") is None
    assert policy.duty_zone is None
    assert Policy.parse('duty_zone = "gent"\n' + text).duty_zone == "gent"
    timers_s = policy.timers.alert_if_seen_within_s
    assert policy.alert_if_seen_within_s(fire) == timers_s
    other = msgspec.structs.replace(fire, alert_if_seen_within_s=7)
    assert policy.alert_if_seen_within_s(other) == 7


def test_a_wave_follows_while_the_radius_grows_and_the_last_is_not_reached() -> None:
    policy = Policy.parse(default_policy_text())
    widening = policy.widening
    last, most_m = widening.max_waves, float(widening.max_radius_m)

    assert policy.next_radius_m(1, 100.0) == 100.0 * widening.factor
    assert policy.next_radius_m(last - 1, 100.0) == 100.0 * widening.factor
    assert policy.next_radius_m(last, 100.0) is None
    assert policy.next_radius_m(1, most_m - 1) == most_m
    assert policy.next_radius_m(1, most_m) is None


def test_the_narrower_audience_counts_whichever_says_it() -> None:
    fire = Policy.parse(default_policy_text()).file.categories["fire"]
    for ours in Audience:
        for theirs in Audience:
            both = {ours, theirs}
            expected = Audience.POLICE if Audience.POLICE in both else Audience.POLICE_AND_NEARBY
            rule = msgspec.structs.replace(fire, audience=ours)
            assert effective_audience(rule, theirs) is expected


def test_names_are_told_in_the_language_that_is_asked_for() -> None:
    fire = Policy.parse(default_policy_text()).file.categories["fire"]
    assert [fire.names.in_language(each) for each in Language] == [
        fire.names.nl,
        fire.names.fr,
        fire.names.en,
    ]
