"""The scenes of the demonstration: places, times, and what people write."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from schemas.ids import new_id
from schemas.messages import EmergencyCall, Mode, Position, Report
from schemas.taxonomy import Language
from verify.world.tracks import Track, moved, synthetic_tracks

CROWD_SPREAD_M = 250.0  # people stay where alerts can reach them


@dataclass(frozen=True)
class ScenePlace:
    """A spot in a city, with the percentage of people who walk around it."""

    name: str
    location: Position
    share: int = 0


@dataclass(frozen=True)
class SceneText:
    """A category and what a witness writes about it."""

    category: str
    text: str
    language: Language = Language.NL


@dataclass(frozen=True)
class Scene:
    """A report to be sent `after_s` the one before, by witness number `witness`."""

    after_s: float
    place: ScenePlace
    story: SceneText
    location: Position
    witness: int
    mode: Mode = Mode.REAL

    def report(self) -> Report:
        """Return the report, seen just now."""
        return Report(
            id=new_id(),
            category=self.story.category,
            location=self.location,
            seen_at=datetime.now(UTC),
            text=self.story.text,
            language=self.story.language,
            emergency_call=EmergencyCall.NOT_CALLED,
            mode=self.mode,
        )


def _place(name: str, lat: float, lon: float, share: int = 0) -> ScenePlace:
    return ScenePlace(name, Position(lat=lat, lon=lon, accuracy_m=8.0), share)


PLACES = (
    _place("Gent, Korenmarkt", 51.0545, 3.7220, 20),
    _place("Gent, Vrijdagmarkt", 51.0567, 3.7263, 15),
    _place("Gent, Sint-Pietersstation", 51.0359, 3.7107, 15),
    _place("Gent, Overpoortstraat", 51.0410, 3.7270, 10),
    _place("Kortrijk, Grote Markt", 50.8276, 3.2650, 15),
    _place("Kortrijk, Station", 50.8243, 3.2644, 10),
    _place("Maaseik, Markt", 51.0966, 5.7925, 15),
)
NOWHERE = _place("Brussel, Grote Markt (outside every zone)", 50.8467, 4.3525)

NEARBY = (
    SceneText("theft", "Man met rode jas rukt een handtas weg en loopt richting de brug."),
    SceneText("fire", "Rook uit een raam op de tweede verdieping."),
    SceneText("fight", "Vier personen vechten voor het café, een ligt op de grond."),
    SceneText("robbery", "Deux hommes cagoulés dans la bijouterie.", Language.FR),
    SceneText("burglary", "Iemand klimt via het afdak naar binnen, de bewoners zijn op reis."),
    SceneText(
        "traffic-accident", "A cyclist was hit by a van, conscious but bleeding.", Language.EN
    ),
    SceneText("medical", "Une dame âgée s'est effondrée, elle respire.", Language.FR),
    SceneText("vandalism", "Jongeren slaan de ruiten van het bushokje in."),
)
AGAIN = (
    SceneText("", "Ik zie het ook, er staan intussen veel mensen bij."),
    SceneText("", "Je confirme, ça continue.", Language.FR),
    SceneText("", "Still going on, I can see it from across the street.", Language.EN),
)
POLICE_ONLY = (
    SceneText("threat", "Mijn buurman bedreigt mij aan de deur met een mes."),
    SceneText("suspicious", "Een busje zonder nummerplaat rijdt al drie keer traag voorbij."),
)
ROUTINE = (
    SceneText("illegal-dumping", "Zes vuilniszakken naast de glasbol."),
    SceneText("graffiti", "Tags op de gevel van de school."),
    SceneText("noise", "Bladblazer sinds zes uur vanmorgen."),
    SceneText("street-lighting", "Drie lampen na elkaar stuk."),
    SceneText("dog-fouling", "Alweer op het grasplein."),
    SceneText("parking", "Bestelwagen op het fietspad."),
    SceneText("bicycle-theft", "Mijn fiets stond hier gisteren nog, blauwe Oxford."),
    SceneText("flyposting", "Affiches op alle elektriciteitskasten."),
)


def crowd_tracks(count: int, seed: int) -> list[Track]:
    """Return a walk for each of `count` people, spread over the places by their shares."""
    tracks: list[Track] = []
    for number, place in enumerate(PLACES):
        walkers = -(-count * place.share // 100)
        tracks += synthetic_tracks(walkers, seed + number, place.location, spread_m=CROWD_SPREAD_M)
    return tracks[:count]


def warming_up(seed: int) -> list[Scene]:
    """Return drills that take every path once, so that later figures are not of cold code."""
    random = Random(f"warm-up {seed}")
    stories = (*POLICE_ONLY, *NEARBY[:3], *ROUTINE[:2]) * 2
    return [
        _scene(random, 0.02, place, story, mode=Mode.DRILL) for place, story in _paired(stories)
    ]


def fixed(seed: int) -> list[Scene]:
    """Return the scenario of `--once`: about forty reports in eight seconds."""
    random = Random(f"once {seed}")
    scenes = [_scene(random, 0.2, place, story) for place, story in _paired(NEARBY)]
    again = [_again(random, scene) for scene in scenes[: len(scenes) // 2]]
    rest = (*POLICE_ONLY, *ROUTINE, *POLICE_ONLY, *ROUTINE)
    others = [_scene(random, 0.2, place, story) for place, story in _paired(rest)]
    return [*scenes, *others[:8], *again, *others[8:], _scene(random, 0.2, NOWHERE, NEARBY[0])]


def endless(seed: int) -> Iterator[Scene]:
    """Yield scenes of a lively evening: about one in two seconds."""
    random = Random(f"live {seed}")
    while True:
        kinds: Sequence[SceneText] = random.choices(
            (NEARBY, POLICE_ONLY, ROUTINE), weights=(50, 15, 35)
        )[0]
        scene = _scene(
            random, random.uniform(0.3, 4.0), random.choice(PLACES), random.choice(kinds)
        )
        yield scene
        if kinds is NEARBY and random.random() < 0.4:
            yield _again(random, scene)


def _paired(stories: Sequence[SceneText]) -> Iterator[tuple[ScenePlace, SceneText]]:
    for number, story in enumerate(stories):
        yield PLACES[number % len(PLACES)], story


def _scene(
    random: Random, after_s: float, place: ScenePlace, story: SceneText, *, mode: Mode = Mode.REAL
) -> Scene:
    return Scene(
        after_s, place, story, _near(random, place.location, 120.0), random.getrandbits(16), mode
    )


def _again(random: Random, scene: Scene) -> Scene:
    """Return a scene in which another witness sees the same from some steps away."""
    said = random.choice(AGAIN)
    story = SceneText(scene.story.category, said.text, said.language)
    place = _near(random, scene.location, 20.0)
    return Scene(random.uniform(0.1, 0.5), scene.place, story, place, scene.witness + 1)


def _near(random: Random, location: Position, spread_m: float) -> Position:
    return moved(location, random.uniform(-spread_m, spread_m), random.uniform(-spread_m, spread_m))
