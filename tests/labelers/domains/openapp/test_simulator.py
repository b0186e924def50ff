"""The phone: what touches, swipes and keys do, and what is in front."""

import numpy as np
import pytest

from vlm_rewards.labelers.domains.openapp import launcher
from vlm_rewards.labelers.domains.openapp.apps import APPS
from vlm_rewards.labelers.domains.openapp.glyphs import GLYPHS
from vlm_rewards.labelers.domains.openapp.phone import drawer_places, folder_places, home_places
from vlm_rewards.labelers.domains.openapp.screens import SCREENS, AppStyle, draw_app
from vlm_rewards.labelers.domains.openapp.simulator import PhoneSimulator, Screen


def phone(seed=0, hard=False, **screen):
    simulator = PhoneSimulator((160, 96), hard)
    simulator.reset(seed)
    simulator.screen = Screen(**screen)
    return simulator


def touch(simulator, what):
    place = next(place for place in simulator.places() if place.what == what)
    simulator.send_touch(place.x / 96, place.y / 160)


def test_there_are_ten_common_and_fifty_diverse_apps_with_signs_and_screens_of_their_own():
    families = [app.family for app in APPS.values()]
    assert (families.count("common"), families.count("diverse")) == (10, 50)
    assert APPS.keys() == GLYPHS.keys()
    assert {app.screen for app in APPS.values()} == SCREENS.keys()
    shown = {draw_app(app, AppStyle(0, 0, False, False, False), 1).image.tobytes() for app in APPS.values()}
    plain = {draw_app(app, AppStyle(0, 0, True, True, False), 1).image.tobytes() for app in APPS.values()}
    assert len(shown) == len(plain) == 60


def test_an_app_opens_from_the_home_page_the_dock_a_folder_and_the_drawer():
    for hold in (
        lambda s: s.phone.pages[0][0] if not s.phone.pages[0][0].startswith("folder") else s.phone.pages[0][1],
        lambda s: s.phone.dock[2],
    ):
        simulator = phone()
        touch(simulator, hold(simulator))
        assert simulator.app_in_front == hold(simulator)
    simulator = phone()
    simulator.screen = Screen(page=next(i for i, cells in enumerate(simulator.phone.pages) if "folder0" in cells))
    touch(simulator, "folder0")
    assert (simulator.screen.mode, simulator.app_in_front) == ("folder", None)
    touch(simulator, simulator.phone.folders[0][5])
    assert simulator.app_in_front == simulator.phone.folders[0][5]
    simulator = phone()
    simulator.send_swipe("up")
    simulator.send_swipe("up")
    assert (simulator.screen.mode, simulator.screen.page) == ("drawer", 1)
    touch(simulator, simulator.phone.apps[20])
    assert simulator.app_in_front == simulator.phone.apps[20]


def test_keys_and_swipes_lead_back():
    for key in ("home", "back"):
        simulator = phone(mode="app", app="chess", part=1)
        simulator.send_key(key)
        assert simulator.screen == Screen()
    simulator = phone(mode="drawer", page=1)
    simulator.send_swipe("down")
    simulator.send_swipe("down")
    assert simulator.screen == Screen()
    simulator.send_swipe("left")
    assert simulator.screen.page == 1
    simulator.send_key("back")
    assert simulator.screen.page == 1  # the back key stays on a home page
    simulator.send_key("home")
    assert simulator.screen == Screen()
    simulator = phone(mode="folder", folder=0)
    simulator.send_touch(0.5, 0.95)
    assert simulator.screen == Screen()


def test_contents_are_scrolled_and_stay_in_front():
    simulator = phone(mode="app", app="mail")
    first = simulator.get_screenshot()
    for part in (1, 2, 2):
        simulator.send_swipe("up")
        assert (simulator.screen.part, simulator.app_in_front) == (part, "mail")
    assert not np.array_equal(simulator.get_screenshot(), first)


def test_a_message_hides_the_app_until_a_button_or_back_closes_it():
    for close in (lambda s: touch(s, "close"), lambda s: s.send_key("back")):
        simulator = phone(mode="app", app="mail", message=0)
        for ignored in (lambda s: s.send_touch(0.5, 0.95), lambda s: s.send_swipe("up")):
            ignored(simulator)
            assert (simulator.app_in_front, simulator.screen.message) == (None, 0)
        close(simulator)
        assert simulator.app_in_front == "mail"
    simulator.screen = Screen(mode="app", app="mail", message=0)
    simulator.send_key("home")
    assert simulator.screen == Screen()


def test_a_hard_phone_moves_before_an_app_is_in_front_and_before_it_is_gone():
    met = set()
    for seed in range(12):
        simulator = phone(seed, hard=True)
        app = simulator.phone.dock[0]
        touch(simulator, app)
        assert (simulator.screen.app, simulator.app_in_front) == (app, None)
        assert simulator.screen.moving
        simulator.send_touch(0.5, 0.01)
        assert not simulator.screen.moving
        covered = simulator.screen.message >= 0
        assert simulator.app_in_front == (None if covered else app)
        met |= {"message"} if covered else {"note"} if simulator.screen.note else {"nothing"}
        simulator.screen = simulator.screen._replace(message=-1)
        simulator.send_key("home")
        assert simulator.app_in_front is None
        simulator.send_swipe("up")
        assert simulator.screen == Screen()
    assert met == {"message", "note", "nothing"}


def test_a_hard_phone_swipes_to_the_app_before():
    simulator = phone(hard=True)
    one, other = simulator.phone.dock[:2]
    for app in (one, other):
        simulator.screen = Screen()
        touch(simulator, app)
        simulator.send_touch(0.5, 0.01)
        simulator.screen = simulator.screen._replace(message=-1)
    simulator.send_swipe("left")
    assert (simulator.screen.before, simulator.screen.app, simulator.app_in_front) == (other, one, None)
    simulator.get_screenshot()
    simulator.send_swipe("left")
    assert (simulator.screen.before, simulator.screen.app) == (None, one)


@pytest.mark.parametrize("hard", [False, True])
def test_everything_on_a_phone_is_installed_and_can_be_reached(hard):
    for seed in range(20):
        simulator = phone(seed, hard)
        made = simulator.phone
        assert set(made.apps) <= APPS.keys()
        drawer = [place.what for page in range(made.drawer_pages) for place in drawer_places(made, page)]
        assert drawer == sorted(made.apps)
        for page in range(len(made.pages)):
            places = home_places(made, page)
            assert {place.what for place in places} <= {*made.apps, "folder0", "folder1"}
            assert all(11 <= place.y <= 150 for place in places)
            assert all(place.y <= 120 for place in places[:-4])
        assert all(len(folder_places(made, i)) == 6 for i in range(len(made.folders)))


@pytest.mark.parametrize("size", [(160, 96), (96, 96), (224, 224), (320, 192)])
def test_screenshots_are_of_the_size_asked_for_and_read_only(size):
    simulator = PhoneSimulator(size, hard=True)
    simulator.reset(1)
    for screen in (
        Screen(message=2),
        Screen(mode="drawer", page=1),
        Screen(mode="folder", folder=1),
        Screen(mode="app", app="piano", note="mail"),
        Screen(mode="app", app="piano", moving=0.4),
        Screen(mode="app", app="piano", moving=0.6, before="chess"),
    ):
        simulator.screen = screen
        shot = simulator.get_screenshot()
        assert (shot.shape, shot.dtype, shot.flags.writeable) == ((*size, 3), np.uint8, False)
        assert simulator.get_screenshot() is shot
    assert len(launcher.MESSAGES) == 5
