"""Captions of what a view of the playroom shows, in many wordings, on which its reference models are trained.

    states   0 ... 95     96 ... 191   192 ... 287   288 ... 383        384 ... 479         480 ... 483       484 ... 5043
             find a toy   lift a toy   a toy in      a toy on the left  a toy on the right  nothing to find,  two toys next
                                       view          of the picture     of the picture      lift, pair, see   to each other

A toy is in view, and on a side, where it is large enough to be told. Captions describe what is seen; no caption has the words of an
instruction, such as "lift the red ball", although the tokenizer knows them. Neutral captions say nothing at all: as a goal's only
negative they give the softmax an absolute meaning. The sides keep left and right apart in the embeddings, which agents may be
trained on.
"""

from itertools import combinations

import numpy as np

from vlm_rewards.labelers.domains.playroom.goals import NEUTRAL, NUM_TOYS, OBJECTS, TOYS

NEUTRAL_CAPTIONS = (
    NEUTRAL,
    NEUTRAL,
    "the room",
    "a playroom",
    "a scene",
    "a picture",
    "a picture of a room",
    "an image of a room",
    "a photo of a room",
    "a view of a room",
)
"""Captions that say nothing. Their cosine is trained to lie between those of true and of false captions in every frame."""

FIND_TEMPLATES = (
    "{a} {toy} close to the camera",
    "{a} {toy} close to the camera",
    "{a} {toy} close to the camera",
    "the {toy} close to the camera",
    "the {toy} is close to the camera",
    "{a} {toy} is close to the camera",
    "{a} {toy} close by",
    "the {toy} is close by",
    "{a} {toy} up close",
    "{a} {toy} right in front",
    "{a} {toy} in front of the camera",
    "near {a} {toy}",
    "near the {toy}",
    "close to {a} {toy}",
    "close to the {toy}",
    "standing before {a} {toy}",
    "a photo of {a} {toy} close to the camera",
    "a picture of {a} {toy} close by",
    "an image of {a} {toy} up close",
)
LIFT_TEMPLATES = (
    "{a} {toy} held up in the air",
    "{a} {toy} held up in the air",
    "{a} {toy} held up in the air",
    "the {toy} held up in the air",
    "the {toy} is held up in the air",
    "{a} {toy} is held up",
    "{a} {toy} in the air",
    "{a} {toy} lifted off the floor",
    "the {toy} is lifted off the floor",
    "holding {a} {toy}",
    "holding the {toy}",
    "carrying {a} {toy}",
    "carrying the {toy}",
    "{a} {toy} in the hand",
    "a photo of {a} {toy} held up",
    "a picture of {a} {toy} held up in the air",
    "an image of {a} {toy} in the air",
)
VIEW_TEMPLATES = (
    "{a} {toy} in the room",
    "{a} {toy} in view",
    "the {toy} is in view",
    "{a} {toy}",
    "there is {a} {toy}",
    "a room with {a} {toy}",
    "a photo of {a} {toy}",
    "a picture of {a} {toy} in a room",
)
SIDE_TEMPLATES = (
    "{a} {toy} on the {side}",
    "the {toy} is on the {side}",
    "{a} {toy} on the {side} of the picture",
    "on the {side} there is {a} {toy}",
    "a photo of {a} {toy} on the {side}",
)
PLACE_TEMPLATES = (
    "{a} {toy} next to {b} {other}",
    "{a} {toy} next to {b} {other}",
    "the {toy} next to the {other}",
    "the {toy} is next to the {other}",
    "{a} {toy} beside {b} {other}",
    "the {toy} is beside the {other}",
    "{a} {toy} and {b} {other} next to each other",
    "the {toy} and the {other} are side by side",
    "a photo of {a} {toy} next to {b} {other}",
)
NOTHING = {
    "find": ("nothing close to the camera", "nothing is close by", "no toy is close to the camera", "close to nothing"),
    "lift": ("nothing held up in the air", "nothing is held up", "holding nothing", "no toy is held up"),
    "place": ("no two toys next to each other", "no two toys are side by side", "nothing is next to anything"),
    "view": ("no toy in view", "no toys in the room", "a room without toys", "a room with nothing to see"),
}
"""Captions that are true when no goal of the family holds, and when no toy is seen."""

MORE_WORDS = (
    "go to find get lift lifts lifting lifted pick up picks take hold holds carry grab put puts place placed placing bring move "
    "drop set at by on with beside near nearby touching together two both agent robot hand hands arm you your it its this that "
    "toy toys object objects thing things something anything some any one other ground table task goal done success successfully "
    "completed has have been being be was are shows showing show frame screenshot render rendering simulation game video scene "
    "stand stands face faces facing looking look see seen front before behind away far large small big left right middle center"
)
"""Words that no caption holds, so that the tokenizer can tell them from unknown ones."""

FIND, LIFT, VIEW, LEFT, RIGHT, FIRST_NOTHING = (place * NUM_TOYS for place in range(6))
"""First state of each sort."""

NOTHING_TO = {name: FIRST_NOTHING + place for place, name in enumerate(NOTHING)}
"""States in which nothing is found, lifted, paired or seen."""

FIRST_PAIR = FIRST_NOTHING + len(NOTHING)
"""First state of two toys next to each other."""

PAIRS = np.array(list(combinations(range(NUM_TOYS), 2)))
"""[4560, 2] int64, two toys of each pair, the smaller number first."""

NUM_STATES = FIRST_PAIR + len(PAIRS)

PAIR_STATE = np.full((NUM_TOYS, NUM_TOYS), -1)
"""[96, 96] int64, state of two toys next to each other, in both orders; -1 for a toy and itself."""
PAIR_STATE[PAIRS[:, 0], PAIRS[:, 1]] = PAIR_STATE[PAIRS[:, 1], PAIRS[:, 0]] = np.arange(FIRST_PAIR, NUM_STATES)


def state_captions() -> list[list[str]]:
    """Writes every wording of every state, in their order, those of two toys in both orders; at the end the neutral captions."""
    single = [
        [template.format(a=_article(toy), toy=toy, side=side) for template in templates]
        for templates, side in (
            (FIND_TEMPLATES, ""),
            (LIFT_TEMPLATES, ""),
            (VIEW_TEMPLATES, ""),
            (SIDE_TEMPLATES, "left"),
            (SIDE_TEMPLATES, "right"),
        )
        for toy in TOYS
    ]
    pairs = [
        [
            template.format(a=_article(toy), toy=toy, b=_article(other), other=other)
            for template in PLACE_TEMPLATES
            for toy, other in ((TOYS[one], TOYS[two]), (TOYS[two], TOYS[one]))
        ]
        for one, two in PAIRS
    ]
    return [*single, *map(list, NOTHING.values()), *pairs, list(NEUTRAL_CAPTIONS)]


def choose_states(rng: np.random.Generator, true: np.ndarray, *, num_pairs: int) -> np.ndarray:
    """Chooses the states that a batch is scored against: all but those of pairs, and some of these.

    Pairs that hold in the batch come first, three quarters at most; then pairs in which one toy has another colour or kind; then
    any.

    Args:
        rng: Source of all randomness.
        true: [B, T] int16, the true states of each frame, and -1.
        num_pairs: Pairs to choose.

    Returns:
        [484 + num_pairs] int64, each state once.
    """
    held = np.unique(true[true >= FIRST_PAIR]) - FIRST_PAIR
    held = rng.permutation(held)[: num_pairs * 3 // 4]
    others = np.empty(0, dtype=np.int64)
    if len(held):
        pairs = PAIRS[rng.choice(held, 2 * num_pairs)]
        rows, place = np.arange(len(pairs)), rng.integers(2, size=len(pairs))
        toy = pairs[rows, place]
        kinds = len(OBJECTS)
        same_colour = toy // kinds * kinds + rng.integers(kinds, size=len(toy))
        same_kind = rng.integers(NUM_TOYS // kinds, size=len(toy)) * kinds + toy % kinds
        pairs[rows, place] = np.where(rng.random(len(toy)) < 0.5, same_colour, same_kind)
        others = PAIR_STATE[pairs[:, 0], pairs[:, 1]]
        others = others[others >= 0] - FIRST_PAIR
    ordered = np.concatenate([held, others, rng.permutation(len(PAIRS))])
    chosen = ordered[np.sort(np.unique(ordered, return_index=True)[1])][:num_pairs]
    return np.concatenate([np.arange(FIRST_PAIR), FIRST_PAIR + chosen])


def _article(toy: str) -> str:
    return "an" if toy.startswith("o") else "a"
