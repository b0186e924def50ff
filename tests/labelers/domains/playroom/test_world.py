"""What actions do in a room, and what holds then; computed by hand in an empty room of 6 x 6 m."""

import math

import numpy as np
import pytest

from vlm_rewards.labelers.domains.domain import ExpertGaveUpError
from vlm_rewards.labelers.domains.playroom.expert import PlayroomExpert
from vlm_rewards.labelers.domains.playroom.goals import TOYS
from vlm_rewards.labelers.domains.playroom.maps import FloorMap, can_drop
from vlm_rewards.labelers.domains.playroom.rooms import Piece, Pose, Room, Toy
from vlm_rewards.labelers.domains.playroom.world import BACK, DROP, FORWARD, GRAB, LEFT, RIGHT, World, count_pixels

RED_BALL, BLUE_MUG, PINK_DUCK = (TOYS.index(name) for name in ("red ball", "blue mug", "pink duck"))
WOOD = (0.5, 0.4, 0.3)
MIDDLE = Pose(3.0, 3.0, 0)


def room(*furniture):
    return Room(6.0, 6.0, 2.4, "oak", "plaster", (1, 1, 1), 0.0, furniture, (), ())


def world(*places, pose=MIDDLE, furniture=()):
    kinds = (RED_BALL, BLUE_MUG, PINK_DUCK)
    toys = [Toy(kind, x, y, 0.0) for kind, (x, y) in zip(kinds, places, strict=False)]
    return World(room(*furniture), toys, pose)


def test_turns_go_round_in_sixteen_and_steps_are_30_centimetres():
    here = world()
    for _ in range(4):
        here.step(LEFT, ())
    assert here.pose == (3.0, 3.0, 4)
    here.step(FORWARD, ())
    assert here.pose == pytest.approx((3.0, 3.3, 4))
    for _ in range(5):
        here.step(RIGHT, ())
    assert here.pose.heading == 15
    here.step(BACK, ())
    angle = -math.pi / 8
    assert here.pose[:2] == pytest.approx((3.0 - 0.3 * math.cos(angle), 3.3 - 0.3 * math.sin(angle)))


def test_walls_furniture_and_toys_stop_the_agent():
    table = Piece("table", 3.9, 3.0, 3, WOOD, WOOD)  # from x = 3.9 on
    for here in (
        world(pose=Pose(5.5, 3.0, 0)),  # 5.8 is closer than 0.3 to the wall at 6.0
        world(pose=Pose(3.4, 3.0, 0), furniture=(table,)),
        world((3.8, 3.0)),  # 3.3 is closer than 0.55 to it
    ):
        before = here.pose
        here.step(FORWARD, ())
        assert here.pose == before
        here.step(BACK, ())
        assert here.pose != before


def test_what_is_grabbed_is_the_seen_toy_nearest_to_the_middle_of_the_picture():
    here = world((4.0, 3.4), (4.0, 2.9), (4.3, 3.0))  # the duck straight ahead is 1.3 m away
    assert here.before([0, 1, 2]) == 1
    assert here.before([0, 2]) == 0
    assert here.before([2]) is None
    assert here.step(GRAB, [0, 1, 2]) == 1
    assert here.held == 1
    assert here.step(GRAB, [0, 1, 2]) is None  # hands are full
    assert here.sight([50, 300, 50]).held == BLUE_MUG


def test_a_toy_is_put_down_80_centimetres_ahead_where_the_floor_is_clear():
    here = world((4.0, 3.0), (3.9, 3.35))
    assert here.step(GRAB, [0]) == 0
    assert here.step(DROP, ()) is None  # the mug is 0.36 m from there
    here.step(RIGHT, ())
    here.step(RIGHT, ())
    assert here.step(DROP, ()) == 0
    half = 0.8 * math.sqrt(0.5)
    assert here.toys[0][:3] == pytest.approx((RED_BALL, 3.0 + half, 3.0 - half))
    assert here.held is None
    edge = world((5.0, 3.0), pose=Pose(5.0 - 0.9, 3.0, 0))
    edge.step(GRAB, [0])
    edge.pose = Pose(5.1, 3.0, 0)
    assert edge.step(DROP, ()) is None  # 0.1 m from the wall


def test_what_holds_is_near_held_and_together_and_only_what_is_seen():
    here = world((4.0, 3.0), (4.0, 3.7), (4.9, 3.3))
    sight = here.sight([200, 100, 8])
    assert sight.near == (RED_BALL,)  # the mug is 1.22 m away
    assert sight.pairs == ((RED_BALL, BLUE_MUG),)  # 0.7 m; from the duck it is 0.95 and 0.98 m
    assert sight.goals() == {
        "find-red-ball",
        "place-red-ball-next-to-blue-mug",
        "place-blue-mug-next-to-red-ball",
    }
    assert here.sight([200, 7, 8]).pairs == ()
    assert here.sight([7, 100, 8]).near == ()
    assert here.sight([200, 7, 8]).pixels == {RED_BALL: 200, PINK_DUCK: 8}
    here.step(GRAB, [0, 1, 2])
    assert here.sight([400, 100, 8]).goals() == {"lift-red-ball"}
    here.pose = Pose(3.0, 3.0, 8)
    assert here.sight([400, 0, 0]).near == ()


def test_pixels_are_counted_per_toy():
    ids = np.zeros((64, 64), np.uint8)
    ids[0, :3], ids[5, 5] = 1, 3
    assert count_pixels(ids, 4) == [3, 0, 1, 0]


def test_ways_lead_round_furniture():
    wall = Piece("bed", 3.0, 0.0, 0, WOOD, WOOD)  # from (2.5, 0) to (3.5, 1.9)
    floor = FloorMap(room(wall))
    free = floor.free([])
    ends = floor.distance(1.05, 0.55) < 0.05
    ways = floor.ways(free, ends)
    row, column = floor.nearest(4.55, 0.55)
    assert ways[row, column] > 3.5 + 2 * 1.0  # straight it is 3.5 m
    assert np.isinf(ways[floor.nearest(3.0, 1.0)])
    target = Toy(RED_BALL, 2.0, 1.0, 0.0)
    seen = floor.in_sight(target.x, target.y, free)
    assert seen[floor.nearest(1.0, 1.0)]
    assert not seen[floor.nearest(4.5, 1.0)]  # behind the bed


def test_ways_do_not_lead_through_what_is_thinner_than_a_step():
    floor = FloorMap(room())
    free = np.ones(floor.x.shape, bool)
    free[30] = False  # a wall of one row of points from side to side
    ways = floor.ways(free, floor.distance(3.05, 1.05) < 0.05)
    assert np.isfinite(ways[:30]).all()
    assert np.isinf(ways[30:]).all()
    assert ways[29, 30] == pytest.approx(1.9)  # from row 10 to row 29
    reached = floor.reached(free, 3.05, 1.05)
    assert reached[:30].all()
    assert not reached[30:].any()


def test_something_is_put_beside_a_toy_and_not_before_it():
    toy = Toy(RED_BALL, 4.0, 3.4, 0.0)
    x, y = np.array([3.2, 3.2, 2.0]), np.array([3.0, 3.4, 3.0])
    # From the second place the toy would be hidden, and the place 0.8 m ahead is where it stands; the third is too far away.
    assert can_drop(room(), x, y, 0, toy, []).tolist() == [False, False, False]  # 0.4 m is less than toys keep
    assert can_drop(room(), x, y - 0.05, 0, toy, []).tolist() == [True, False, False]
    assert can_drop(room(), x, y - 0.05, 0, toy, [Toy(BLUE_MUG, 4.0, 2.6, 0.0)]).tolist() == [False, False, False]


def test_the_expert_gives_up_where_there_is_no_way():
    bed = [Piece("bed", x, 2.0, 0, WOOD, WOOD) for x in (0.5, 1.5, 2.5, 3.5, 4.5, 5.5)]
    here = world((1.0, 5.0), pose=Pose(1.0, 1.0, 0), furniture=bed)
    expert = PlayroomExpert(here, list, "find", (0,))
    with pytest.raises(ExpertGaveUpError, match=r"the expert knows no way: got none from 1.0, 1.0"):
        expert.act(None)


def test_the_expert_gives_up_where_its_steps_are_never_taken():
    here = world((5.0, 5.0), pose=Pose(1.0, 1.0, 0))
    expert = PlayroomExpert(here, list, "find", (0,))
    with pytest.raises(ExpertGaveUpError, match=r"the expert walks in circles: got 5 visits of one place"):
        for _ in range(9):
            expert.act(None)


def test_the_expert_gives_up_where_two_toys_are_never_seen():
    here = world((3.9, 3.2), (3.9, 2.8))
    expert = PlayroomExpert(here, list, "place", (0, 1))
    with pytest.raises(ExpertGaveUpError, match=r"the expert does not get both toys into the picture: got 6 tries"):
        for _ in range(9):
            expert.act(None)


def test_the_expert_puts_down_what_it_was_not_asked_for():
    here = world((4.0, 3.0), (5.0, 3.0))
    here.step(GRAB, [0])
    expert = PlayroomExpert(here, list, "lift", (1,))
    assert expert.act(None) != GRAB
    for _ in range(16):
        action = expert.act(None)
        here.step(action, ())
        if action == DROP:
            break
    assert here.held is None
