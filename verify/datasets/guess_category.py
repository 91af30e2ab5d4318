"""Which column of an unknown file says what happened, and which of our categories that is."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection

from verify.datasets.sample import Column, Table

CATEGORY_WORDS = (
    "type*",
    "categor*",
    "cat",
    "subcategor*",
    "incident*",
    "offens*",
    "crime*",
    "primary",
    "melding*",
    "soort*",
    "delict*",
    "feit*",
    "nature*",
    "descr*",
    "omschr*",
    "call",
    "event*",
    "kind",
    "infraction*",
    "art",
    "onderwerp*",
    "aard",
    "service*",
    "request*",
    "problem*",
    "klacht*",
    "class*",
)
MOST_VALUES = 400

# By our category, in the order in which they are tried: words (from their beginning) or, of five
# letters and more, parts of words, as Dutch and German join them; without accents.
WORDS: dict[str, tuple[str, ...]] = {
    "bicycle-theft": ("fiets", "bicycle", "bike th", "velo", "fahrrad"),
    "missing-person": ("vermist", "missing p", "disparu", "disparition", "vermisst"),
    "robbery": (
        "overval",
        "straatroof",
        "beroving",
        "robbery",
        "vol a main armee",
        "vol avec",
        "raub",
        "mugging",
    ),
    "burglary": ("inbraak", "burglar", "cambriol", "break-in", "einbruch"),
    "graffiti": ("graffiti",),
    "vandalism": (
        "vandal",
        "vernieling",
        "criminal damage",
        "mischief",
        "degradation",
        "sachbesch",
        "beschadiging",
    ),
    "dog-fouling": ("hondenpoep", "dog foul", "dejection", "hundekot"),
    "flyposting": ("wildplak", "flypost", "affichage", "poster"),
    "fire": (
        "brand",
        "fire",
        "incendie",
        "feu",
        "feuer",
        "smoke",
        "rook",
        "gas leak",
        "gas-odor",
        "gaslek",
        "fuite de gaz",
        "hazardous",
        "carbon mono",
    ),
    "illegal-dumping": (
        "sluikstort",
        "afval",
        "dumping",
        "trash",
        "waste",
        "abfall",
        "depot sauv",
        "dechet",
        "zwerfvuil",
        "grofvuil",
        "garbage",
        "ordure",
        "litter",
        "debris",
    ),
    "street-lighting": (
        "verlichting",
        "lantaarn",
        "street light",
        "streetlight",
        "eclairage",
        "beleuchtung",
    ),
    "traffic-accident": (
        "verkeer",
        "aanrijding",
        "traffic",
        "accident",
        "collision",
        "crash",
        "ongeval",
        "unfall",
        "vehicle acc",
        "road",
        "mvc",
    ),
    "parking": (
        "parkeer",
        "parking",
        "stationnement",
        "blocked driveway",
        "abandoned veh",
        "disabled veh",
    ),
    "noise": ("noise", "geluid", "lawaai", "bruit", "tapage", "larm", "loud", "overlast"),
    "threat": (
        "bedreig",
        "threat",
        "weapon",
        "wapen",
        "gun",
        "shooting",
        "stabbing",
        "menace",
        "arme",
        "homicide",
        "murder",
        "doodslag",
        "bomb",
        "bom",
        "terror",
    ),
    "fight": (
        "vechtpartij",
        "assault",
        "battery",
        "fight",
        "bagarre",
        "geweld",
        "mishandeling",
        "coups",
        "violence",
        "slagen",
        "schlagerei",
        "korperverletzung",
        "ruzie",
        "rixe",
    ),
    "theft": (
        "diefstal",
        "theft",
        "larceny",
        "stolen",
        "vol",
        "shoplift",
        "zakkenroll",
        "pickpocket",
        "diebstahl",
        "dief",
    ),
    "medical": (
        "medisch",
        "medical",
        "ems",
        "ambulan",
        "cardiac",
        "injur",
        "sick",
        "ziek",
        "letsel",
        "onwel",
        "overdose",
        "reanim",
        "medicale",
        "blesse",
        "malaise",
        "unconscious",
        "seizure",
        "respirator",
        "unresponsive",
        "hemorrh",
        "fall victim",
        "pain",
        "choking",
        "stroke",
        "maternity",
        "syncop",
        "fracture",
        "lacerat",
        "allerg",
        "diabet",
        "victim",
        "weakness",
        "mental status",
        "dehydrat",
        "heat exh",
        "dizz",
        "fever",
        "nausea",
        "poison",
        "rescue",
    ),
    "suspicious": ("verdacht", "suspic", "suspect", "prowler", "trespass", "warrant", "police"),
}


def category_of(value: str, known: Collection[str]) -> str | None:
    """Return our category for a category in their words, if one of its words is known."""
    plain = unicodedata.normalize("NFKD", value.casefold()).encode("ascii", "ignore").decode()
    for category, words in WORDS.items():
        if category in known and _pattern(words).search(plain):
            return category
    return None


def _pattern(words: tuple[str, ...]) -> "re.Pattern[str]":
    return re.compile(
        "|".join(f"{'' if len(each) >= 5 else chr(92) + 'b'}{re.escape(each)}" for each in words)
    )


def guess_category(table: Table, known: Collection[str], others: Collection[str]) -> str | None:
    """Return the column that says what happened; `others` say when and where."""
    scores = {
        column.name: _score(column, known) for column in table.columns if column.name not in others
    }
    best = max(scores, key=lambda name: scores[name], default=None)
    return best if best is not None and scores[best] > 0.0 else None


def _score(column: Column, known: Collection[str]) -> float:
    """Texts of which there are not too many different ones; better when named, best when known."""
    values = Counter(column.present)
    if not values or len(values) > MOST_VALUES or len(values) > 0.5 * len(column.present) + 5:
        return 0.0
    if not any(any(mark.isalpha() for mark in value) for value in values):
        return 0.0
    understood = sum(count for value, count in values.items() if category_of(value, known))
    named = 1.0 if column.is_called(CATEGORY_WORDS) else 0.0
    share = understood / len(column.present) * len(column.present) / len(column.values)
    return 0.1 + named + 2.0 * share + 0.15 * math.log10(len(values))
