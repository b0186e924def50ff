"""Draws rooms with Panda3D's software renderer, without a display, and says which pixels show which toy.

    Room, toys ──► Stage (a scene graph) ──► Canvas of a frame size: frame [H, W, 3], and where toys are seen, ids [64, 64]

All stages of a process share the canvases, one per frame size. Colours are lit once, when a mesh is made, so that no lights are
drawn with; frames are drawn at twice their size and reduced. Everything is drawn in the order of the scene graph, which makes
pixels a function of the room, the toys and the pose alone.

Shape letters: H, W frame; S = 64 side of the picture of ids.
"""

import ctypes
import functools
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vlm_rewards.labelers.domains.playroom.drawing.furniture import Part
from vlm_rewards.labelers.domains.playroom.drawing.meshes import Light, Mesh, quad
from vlm_rewards.labelers.domains.playroom.drawing.shell import room_parts
from vlm_rewards.labelers.domains.playroom.drawing.textures import SIDE, texture
from vlm_rewards.labelers.domains.playroom.drawing.toys import toy_mesh
from vlm_rewards.labelers.domains.playroom.goals import TOYS
from vlm_rewards.labelers.domains.playroom.rooms import NUM_HEADINGS, Pose, Room, Toy

ID_SIDE = 64
"""Side of the picture of ids in pixels."""

EYE = 0.62
"""Height of the camera in metres."""

PITCH = -17.0
"""Degrees by which the camera looks up."""

FIELD = 80.0
"""Field of view in degrees, in both directions."""

HELD = Toy(-1, 0.0, 0.80, 215.0)
"""Where a held toy is, as seen by the camera (x to the right, y ahead), and how it is turned. It is drawn smaller and nearer, which
looks the same and keeps it out of walls."""
_HELD_DEPTH = 0.2
_HELD_DROP = 0.33

_NEAR, _FAR = 0.08, 14.0
_COLOURS, _IDS = 1, 2
_OVERSAMPLING = 2
_ID_SCALE = 16

_lock = threading.RLock()  # Panda3D's engine belongs to the whole process


class Seen(NamedTuple):
    """What a pose shows.

    Attributes:
        frame: [H, W, 3] uint8 RGB, read-only.
        ids: [S, S] uint8, for every pixel 1 plus the index of the toy that it shows, or 0; read-only.
    """

    frame: np.ndarray
    ids: np.ndarray


NO_IDS = np.zeros((ID_SIDE, ID_SIDE), np.uint8)
NO_IDS.flags.writeable = False


class Stage:
    """The scene graph of one room at a time.

    Args:
        side: H and W of its frames in pixels.
    """

    def __init__(self, side: int) -> None:
        with _lock:
            self._canvas = _canvas(side)
            self._root = _core().NodePath("room")
        self._light = Light((0.0, 0.0, 1.0))
        self._toys: list[Any] = []
        self._shadows: list[Any] = []

    def furnish(self, room: Room, toys: Sequence[Toy]) -> None:
        """Shows another room, with toys on its floor."""
        core = _core()
        angle = math.radians(room.sun)
        self._light = Light((0.62 * math.cos(angle), 0.62 * math.sin(angle), 0.7846))
        with _lock:
            self._clear()
            self._root = core.NodePath("room")
            self._root.setBin("unsorted", 0)
            shell, furniture, shadows = room_parts(room)
            for part in shell:
                self._root.attachNewNode(_node(part, self._light)).hide(core.BitMask32.bit(_IDS))
            for part in furniture:
                self._root.attachNewNode(_node(part, self._light))
            self._blobs = self._root.attachNewNode("shadows")
            self._blobs.hide(core.BitMask32.bit(_IDS))
            self._blobs.setTransparency(core.TransparencyAttrib.MAlpha)
            self._blobs.setDepthWrite(False)
            self._blobs.attachNewNode(_node(Part("shadow", shadows), None))
            self._toys, self._shadows = [], []
            for toy in toys:
                self._toys.append(self._root.attachNewNode("toy"))
                shadow = self._blobs.attachNewNode(_shadow_node())
                self._shadows.append(shadow)
                self.put(len(self._toys) - 1, toy)

    def put(self, index: int, toy: Toy) -> None:
        """Puts a toy on the floor."""
        with _lock:
            path = self._renew(index, self._root)
            path.setTag("toy", str(index + 1))
            path.attachNewNode(_node(Part(None, _mesh(toy.kind).moved(yaw=toy.yaw)), self._light))
            path.setPos(toy.x, toy.y, 0.004)
            self._shadows[index].show()
            self._shadows[index].setPos(toy.x, toy.y, 0)

    def lift(self, index: int, kind: int) -> None:
        """Holds a toy before the camera."""
        with _lock:
            path = self._renew(index, self._root)
            path.setTag("toy", str(index + 1))
            light = Light((-0.45, -0.60, 0.66))
            mesh = _mesh(kind).moved(yaw=HELD.yaw).moved((HELD.x, HELD.y, -_HELD_DROP))
            path.attachNewNode(_node(Part(None, mesh.scaled(_HELD_DEPTH / HELD.y)), light))
            self._shadows[index].hide()

    def _renew(self, index: int, parent: Any) -> Any:
        self._toys[index].removeNode()
        self._toys[index] = parent.attachNewNode("toy")
        return self._toys[index]

    def draw(self, pose: Pose, held: int | None, ids: bool) -> Seen:
        """Draws what is seen from a pose.

        Args:
            pose: Where the camera is.
            held: Index of the toy that is held.
            ids: Whether any toy may be seen; else no ids are drawn.
        """
        with _lock:
            heading = 360.0 * pose.heading / NUM_HEADINGS - 90
            if held is not None:
                self._toys[held].setPosHpr(pose.x, pose.y, EYE, heading, PITCH, 0)
            return self._canvas.draw(self._root, pose.x, pose.y, heading, ids)

    def close(self) -> None:
        """Frees the scene graph."""
        with _lock:
            self._clear()

    def _clear(self) -> None:
        core = _core()
        self._root.removeNode()
        self._toys, self._shadows = [], []
        for _ in range(3):
            core.RenderState.garbageCollect()
            core.TransformState.garbageCollect()


class _Canvas:
    """Buffers that frames and ids are drawn into.

    Args:
        side: H and W of the frames.
    """

    def __init__(self, side: int) -> None:
        self._side = side
        self._frame, self._frame_pixels, self._camera = self._buffer(side * _OVERSAMPLING, _COLOURS)
        self._ids, self._id_pixels, self._id_camera = self._buffer(ID_SIDE, _IDS)
        core = _core()
        blank = core.RenderState.make(core.ColorAttrib.makeFlat((0, 0, 0, 1)), core.TextureAttrib.makeAllOff(), 10)
        self._id_camera.node().setInitialState(blank)
        self._id_camera.node().setTagStateKey("toy")
        for number in range(1, 256 // _ID_SCALE):
            flat = core.ColorAttrib.makeFlat((_id_colour(number), 0, 0, 1))
            self._id_camera.node().setTagState(str(number), core.RenderState.make(flat, 20))

    def _buffer(self, side: int, mask: int) -> tuple[Any, Any, Any]:
        core, engine, pipe, host = _engine()
        properties = core.FrameBufferProperties()
        properties.setRgbColor(True)
        properties.setRgbaBits(8, 8, 8, 0)
        properties.setDepthBits(16)
        size = core.WindowProperties.size(side, side)
        name = f"{side}/{mask}"
        made = (name, 0, properties, size, core.GraphicsPipe.BFRefuseWindow)
        buffer = engine.makeOutput(pipe, *made) if host is None else engine.makeOutput(pipe, *made, host.getGsg(), host)
        assert buffer is not None, "Panda3D's software renderer makes no buffer"
        buffer.setClearColor((0, 0, 0, 1))
        buffer.setActive(False)
        pixels = core.Texture()
        buffer.addRenderTexture(pixels, core.GraphicsOutput.RTMCopyRam)
        lens = core.PerspectiveLens(FIELD, FIELD)
        lens.setNearFar(_NEAR, _FAR)
        camera = core.NodePath(core.Camera(name, lens))
        camera.node().setCameraMask(core.BitMask32.bit(mask))
        buffer.makeDisplayRegion().setCamera(camera)
        _hosts.append(buffer)
        return buffer, pixels, camera

    def draw(self, root: Any, x: float, y: float, heading: float, ids: bool) -> Seen:
        _, engine, _, _ = _engine()
        cameras = (self._camera, self._id_camera) if ids else (self._camera,)
        for camera in cameras:
            camera.reparentTo(root)
            camera.setPosHpr(x, y, EYE, heading, PITCH, 0)
        self._frame.setActive(True)
        self._ids.setActive(ids)
        engine.renderFrame()
        self._frame.setActive(False)
        self._ids.setActive(False)
        for camera in cameras:
            camera.detachNode()
        large = _pixels(self._frame_pixels, self._side * _OVERSAMPLING)
        return Seen(_reduced(large), _read_ids(self._id_pixels) if ids else NO_IDS)


def _reduced(large: np.ndarray) -> np.ndarray:
    """Returns the mean of every square of 2 x 2 pixels, as RGB from above, read-only."""
    wide = large.view(np.uint32)
    red_blue, green = wide & 0x00FF00FF, (wide >> 8) & 0x000000FF
    total = red_blue[::2] + red_blue[1::2]
    total = total[:, ::2] + total[:, 1::2] + 0x00020002
    middle = green[::2] + green[1::2]
    middle = middle[:, ::2] + middle[:, 1::2] + 2
    frame = np.empty((*total.shape, 3), np.uint8)
    frame[..., 0] = (total >> 18)[::-1]
    frame[..., 1] = (middle >> 2)[::-1]
    frame[..., 2] = ((total & 0x3FF) >> 2)[::-1]
    frame.flags.writeable = False
    return frame


def _read_ids(pixels: Any) -> np.ndarray:
    ids = _pixels(pixels, ID_SIDE).reshape(ID_SIDE, ID_SIDE, 4)[::-1, :, 2] // _ID_SCALE
    ids.flags.writeable = False
    return ids


def _pixels(pixels: Any, side: int) -> np.ndarray:
    """Returns what was drawn, [side, 4 * side] uint8, blue, green, red and alpha of every pixel from below."""
    return np.frombuffer(pixels.getRamImage(), np.uint8).reshape(side, 4 * side)


def _id_colour(number: int) -> float:
    return (number * _ID_SCALE + _ID_SCALE / 2) / 255


_hosts: list[Any] = []


@functools.cache
def _canvas(side: int) -> _Canvas:
    return _Canvas(side)


@functools.cache
def _core() -> Any:
    try:
        import panda3d.core
    except ImportError as error:
        raise ImportError(
            "to draw the playroom, panda3d must be installed: got none. pip install 'vlm-rewards[playroom]'"
        ) from error
    return panda3d.core


@functools.cache
def _pipe() -> Any:
    """Returns the pipe of the software renderer that needs no display."""
    core = _core()
    core.loadPrcFileData("vlm_rewards", "notify-level error")
    library = next(Path(core.__file__).parent.glob("*p3tinydisplay.*"))
    try:
        # This registers its pipes; whoever asks Panda3D for the module tries to open a display first.
        ctypes.CDLL(str(library))
    except OSError as error:
        raise ImportError(
            f"Panda3D's software renderer cannot be loaded: got {error}. Install the library that it names (libX11.so.6 is in "
            f"Debian's package libx11-6); no display is needed"
        ) from error
    kind = core.TypeRegistry.ptr().findType("TinyOffscreenGraphicsPipe")
    return core.GraphicsPipeSelection.getGlobalPtr().makePipe(kind)


def _engine() -> tuple[Any, Any, Any, Any]:
    core = _core()
    return core, core.GraphicsEngine.getGlobalPtr(), _pipe(), _hosts[0] if _hosts else None


@functools.cache
def _texture(name: str) -> Any:
    core = _core()
    made = core.Texture(name)
    made.setup2dTexture(
        SIDE, SIDE, core.Texture.TUnsignedByte, core.Texture.FRgba if name == "shadow" else core.Texture.FRgb
    )
    pixels = texture(name)
    made.setRamImage(np.ascontiguousarray(pixels[..., [2, 1, 0, 3] if name == "shadow" else [2, 1, 0]]).tobytes())
    made.setMinfilter(core.SamplerState.FTLinearMipmapNearest)
    made.setMagfilter(core.SamplerState.FTLinear)
    return made


@functools.lru_cache(maxsize=128)
def _mesh(kind: int) -> Mesh:
    colour, thing = TOYS[kind].split()
    return toy_mesh(colour, thing)


def _shadow_node() -> Any:
    size = 0.34
    corners = ((-size, -size, 0.022), (size, -size, 0.022), (size, size, 0.022), (-size, size, 0.022))
    return _node(Part("shadow", quad(corners, (1, 1, 1))), None)


def _node(part: Part, light: Light | None) -> Any:
    """Returns a node with the triangles of a part, in a light or as they are."""
    core, mesh = _core(), part.mesh
    rows = np.zeros(len(mesh.points), dtype=[("point", "<f4", 3), ("colour", "u1", 4), ("place", "<f4", 2)])
    rows["point"] = mesh.points
    rows["colour"][:, :3] = 255 if light is None else mesh.lit(light)
    rows["colour"][:, 3] = 255
    rows["place"] = mesh.places
    data = core.GeomVertexData(part.texture or "", core.GeomVertexFormat.getV3c4t2(), core.Geom.UHStatic)
    data.uncleanSetNumRows(len(rows))
    data.modifyArrayHandle(0).copyDataFrom(rows.tobytes())
    triangles = core.GeomTriangles(core.Geom.UHStatic)
    triangles.setIndexType(core.Geom.NTUint16)
    index = triangles.modifyVertices()
    index.uncleanSetNumRows(mesh.triangles.size)
    index.modifyHandle().copyDataFrom(mesh.triangles.astype("<u2").tobytes())
    geom = core.Geom(data)
    geom.addPrimitive(triangles)
    node = core.GeomNode("")
    node.addGeom(
        geom,
        core.RenderState.make(core.TextureAttrib.make(_texture(part.texture)))
        if part.texture
        else core.RenderState.makeEmpty(),
    )
    return node
