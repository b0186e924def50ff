"""The names of BabyAI's levels, as MiniGrid 3 registers them; a test compares them with its registry."""

GO_TO = """
GoToLocal-v0 GoToObj-v0 GoToObjS4-v0 GoToObjS6-v1 GoToLocalS5N2-v0 GoToLocalS6N2-v0 GoToLocalS6N3-v0 GoToLocalS6N4-v0
GoToLocalS7N4-v0 GoToLocalS7N5-v0 GoToLocalS8N2-v0 GoToLocalS8N3-v0 GoToLocalS8N4-v0 GoToLocalS8N5-v0 GoToLocalS8N6-v0
GoToLocalS8N7-v0 GoToRedBall-v0 GoToRedBallGrey-v0 GoToRedBallNoDists-v0 GoToRedBlueBall-v0 GoToDoor-v0 GoToObjDoor-v0 GoTo-v0
GoToOpen-v0 GoToImpUnlock-v0 GoToObjMaze-v0 GoToObjMazeOpen-v0 GoToObjMazeS4R2-v0 GoToObjMazeS4-v0 GoToObjMazeS5-v0
GoToObjMazeS6-v0 GoToObjMazeS7-v0 GoToSeq-v0 GoToSeqS5R2-v0
"""
PICK_UP = """
PickupDist-v0 PickupDistDebug-v0 PickupLoc-v0 PickupAbove-v0 Pickup-v0 UnblockPickup-v0 UnlockPickup-v0 UnlockPickupDist-v0
BlockedUnlockPickup-v0 FindObjS5-v0 FindObjS6-v0 FindObjS7-v0 OneRoomS8-v0 OneRoomS12-v0 OneRoomS16-v0 OneRoomS20-v0
KeyCorridor-v0 KeyCorridorS3R1-v0 KeyCorridorS3R2-v0 KeyCorridorS3R3-v0 KeyCorridorS4R3-v0 KeyCorridorS5R3-v0
KeyCorridorS6R3-v0
"""
PUT_NEXT = """
PutNextLocal-v0 PutNextLocalS5N3-v0 PutNextLocalS6N4-v0 PutNextS4N1-v0 PutNextS5N1-v0 PutNextS5N2-v0 PutNextS6N3-v0
PutNextS7N4-v0 PutNextS5N2Carrying-v0 PutNextS6N3Carrying-v0 PutNextS7N4Carrying-v0 MoveTwoAcrossS5N2-v0 MoveTwoAcrossS8N9-v0
"""
OPEN = """
OpenRedDoor-v0 OpenDoor-v0 OpenDoorDebug-v0 OpenDoorColor-v0 OpenDoorLoc-v0 OpenTwoDoors-v0 OpenRedBlueDoors-v0
OpenRedBlueDoorsDebug-v0 OpenDoorsOrderN2-v0 OpenDoorsOrderN4-v0 OpenDoorsOrderN2Debug-v0 OpenDoorsOrderN4Debug-v0 Open-v0
ActionObjDoor-v0 Unlock-v0 UnlockLocal-v0 UnlockLocalDist-v0 UnlockToUnlock-v0 KeyInBox-v0
"""
MIXED = "Synth-v0 SynthS5R2-v0 SynthLoc-v0 SynthSeq-v0 MiniBossLevel-v0 BossLevel-v0 BossLevelNoUnlock-v0"

LEVEL_NAMES = tuple(f"BabyAI-{name}" for group in (GO_TO, PICK_UP, PUT_NEXT, OPEN, MIXED) for name in group.split())
"""All 96 names, by what their missions ask for."""
