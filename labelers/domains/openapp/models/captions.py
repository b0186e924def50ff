"""Captions of what a phone shows, in many wordings, on which OpenApp's reference models are trained.

A state is something that a screen shows: one of 60 apps in front, one of 60 apps on its way to the front or back, the home screen,
the drawer, a folder, a message, a note of another app, or no app in front. Captions describe what is seen; no caption has the words
of an instruction, such as "open chess", although the tokenizer knows them. Neutral captions say nothing at all: among a goal's
negatives they give the softmax an absolute meaning.
"""

from vlm_rewards.labelers.domains.openapp.apps import APPS, NEGATIVES

NEUTRAL = (
    NEGATIVES[0],
    NEGATIVES[0],
    "a screenshot",
    "a phone",
    "the phone",
    "a screen of a phone",
    "the screen of an android phone",
    "a picture of a phone",
    "an image of a phone",
    "a photo of a phone",
    "a screenshot on android",
)
"""Captions that say nothing. Their cosine is trained to lie between those of true and of false captions in every frame."""

OPEN_TEMPLATES = (
    "the {app} app is open on the phone",
    "the {app} app is open on the phone",
    "the {app} app is open",
    "the {app} app is in front",
    "the {app} app in front",
    "the {app} app",
    "an open {app} app",
    "{app} is open",
    "{app} is open on a phone",
    "{app} on a phone",
    "{app} on the screen",
    "{app}",
    "the screen of the {app} app",
    "the {app} app on a phone",
    "the {app} app on an android phone",
    "a phone with the {app} app open",
    "a phone with {app} open",
    "a phone that shows the {app} app",
    "a phone in the {app} app",
    "a screenshot of the {app} app",
    "a screenshot of the {app} app on a phone",
    "a screenshot of {app}",
    "a screenshot of an android phone with {app} open",
    "a picture of the {app} app",
    "an image of the {app} app",
    "a photo of {app} on a phone",
)
MOVING_TEMPLATES = (
    "the {app} app is opening",
    "the {app} app opens or closes",
    "the {app} app comes up",
    "the {app} app is half open",
    "{app} is half open",
    "{app} is opening or closing",
    "the {app} app on its way to the front",
    "the {app} app moves over the screen",
    "a part of the {app} app",
    "a small picture of the {app} app over the screen",
    "a phone that opens {app}",
)
_OTHER_CAPTIONS = {
    "home": (
        NEGATIVES[1],
        "the home screen",
        "a home screen",
        "a home screen with icons of apps",
        "icons of apps on the home screen",
        "a screenshot of the home screen",
        "a phone that shows its home screen",
        "a picture of the home screen of a phone",
        "a dock and icons of apps",
    ),
    "drawer": (
        NEGATIVES[2],
        "a list of all apps",
        "the list of all apps",
        "icons of all apps",
        "all apps of the phone",
        "the app drawer",
        "a drawer of apps",
        "a screenshot of the list of all apps",
        "a phone that shows all its apps",
    ),
    "folder": (
        "an open folder of apps",
        "a folder of apps",
        "a folder is open",
        "a folder with icons of apps",
        "icons in a folder",
        "a screenshot of a folder",
        "a phone that shows a folder",
    ),
    "message": (
        NEGATIVES[3],
        "a message",
        "a message over the screen",
        "a message with two buttons",
        "a pop up",
        "a message is in front",
        "a screenshot of a message on a phone",
        "a phone that shows a message",
    ),
}
_NOTE_CAPTIONS = (
    "a note at the top of the screen",
    "a note over the top of an app",
    "a note of another app",
    "a notification",
    "an app with a note at the top",
    "a notification over an app",
)
_NOTHING_CAPTIONS = (
    "no app is open",
    "no app is in front",
    "no app is open on the phone",
    "a phone without an open app",
    "a phone with no app in front",
    "nothing is open",
)

OPEN = {app: index for index, app in enumerate(APPS)}
"""State of an app in front, by its name."""

MOVING = {app: len(APPS) + index for index, app in enumerate(APPS)}
"""State of an app on its way to the front or back, by its name."""

OTHERS = {name: 2 * len(APPS) + index for index, name in enumerate(_OTHER_CAPTIONS)}
"""States of a phone without an app, by name: those of `simulator.Screen.mode`, and a message."""

NOTE = 2 * len(APPS) + len(OTHERS)
"""State of a note over an app."""

NOTHING = NOTE + 1
"""State of a phone without an app in front."""

NUM_STATES = NOTHING + 1

MORE_WORDS = (
    "s open opens opened opening go to start starts started launch launched run running use using used tap touch press icon icons "
    "application applications program task goal now currently has have it this that current window display displays shown showing "
    "shows device mobile smartphone android ios screen front with within inside please switch back navigate visit view active and "
    "some thing something someone frame video game games closed close end state success"
)
"""Words that no caption holds, so that the tokenizer can tell them from unknown ones."""


def state_captions() -> list[list[str]]:
    """Writes every wording of every state, in their order, and the neutral captions at the end."""
    named = [
        [template.format(app=app) for template in templates]
        for templates in (OPEN_TEMPLATES, MOVING_TEMPLATES)
        for app in APPS
    ]
    others = [*_OTHER_CAPTIONS.values(), _NOTE_CAPTIONS, _NOTHING_CAPTIONS]
    return [*named, *map(list, others), list(NEUTRAL)]
