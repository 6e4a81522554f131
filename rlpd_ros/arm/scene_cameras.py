# SPDX-License-Identifier: Apache-2.0
"""Pictures of a MuJoCo scene by its cameras, drawn as cheaply as it goes: two of 128 x 128 in 1 to 2 ms on a CPU."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import mujoco
import numpy as np

from rlpd_ros.arm.opengl import NEEDED, find_backend
from rlpd_ros.errors import ConfigError

_BACKENDS = ("egl", "osmesa", "glfw")
_MAX_GEOMS = 200
_COSTLY = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_FOG,
           mujoco.mjtRndFlag.mjRND_HAZE)
"""What is not drawn. Shadows alone would take three times as long as all the rest."""
_SAMPLES = 4  # per pixel, for people


class SceneCameras:
    """Draw what the cameras ``names`` of ``model`` see, ``width`` x ``height`` each.

    ``for_people``: with smooth edges and the sky, which networks do without: it takes several times as long.
    Belongs to the thread that made it. Raises ConfigError for a camera that there is not, and where nothing can be
    drawn.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, names: Sequence[str], width: int, height: int,
                 for_people: bool = False):
        self._model, self._data = model, data
        self._cameras = {name: _camera(model, name) for name in names}
        if len(self._cameras) < len(names):
            raise ConfigError(f"cameras: expected different names, found {', '.join(names)}")
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        model.vis.quality.offsamples = _SAMPLES if for_people else 0
        self._context, self._renderer = _make_renderer(model, width, height)
        self._release = weakref.finalize(self, _release, self._context, self._renderer)
        atexit.register(self._release)  # before EGL itself is ended, which has registered just now
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._renderer)
        self._area = mujoco.MjrRect(0, 0, width, height)
        self._scene = mujoco.MjvScene(model, _MAX_GEOMS)
        for flag in _COSTLY:
            self._scene.flags[flag] = 0
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = for_people
        self._options, self._no_perturbation = mujoco.MjvOption(), mujoco.MjvPerturb()
        self._options.sitegroup[:] = 0
        self._upside_down = np.empty((height, width, 3), np.uint8)  # as OpenGL has it

    def look(self) -> dict[str, np.ndarray]:
        """Return new pictures, uint8 (height, width, 3), of the positions in the data, by the names of the cameras."""
        model, data, scene = self._model, self._data, self._scene
        self._context.make_current()  # another arm in this thread has one too
        mujoco.mj_camlight(model, data)
        pictures: dict[str, np.ndarray] = {}
        for name, camera in self._cameras.items():
            if pictures:  # the scene is there already
                mujoco.mjv_updateCamera(model, data, camera, scene)
            else:
                mujoco.mjv_updateScene(model, data, self._options, self._no_perturbation, camera,
                                       mujoco.mjtCatBit.mjCAT_ALL, scene)
            mujoco.mjr_render(self._area, scene, self._renderer)
            mujoco.mjr_readPixels(self._upside_down, None, self._area, self._renderer)
            pictures[name] = self._upside_down[::-1].copy()
        return pictures

    def close(self) -> None:
        """Release what OpenGL holds; may be called twice."""
        self._release()
        atexit.unregister(self._release)


def _make_renderer(model: mujoco.MjModel, width: int, height: int) -> tuple[Any, mujoco.MjrContext]:
    """Return a context that is current in this thread, and what draws ``model`` in it. Raises ConfigError."""
    backend = find_backend()
    if backend not in _BACKENDS:
        raise ConfigError(f"cameras: expected an OpenGL that draws without a display, found {backend or 'none'}: "
                          f"{NEEDED}")
    try:
        context = import_module(f"mujoco.{backend}").GLContext(width, height)
        context.make_current()
        return context, mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
    except Exception as error:  # of many kinds, by MuJoCo, PyOpenGL, ctypes and GLFW
        raise ConfigError(f"cameras: cannot draw by {backend}: {' '.join(str(error).split())}: {NEEDED}") from error


def _release(context: Any, renderer: mujoco.MjrContext) -> None:
    context.make_current()
    renderer.free()
    context.free()


def _camera(model: mujoco.MjModel, name: str) -> mujoco.MjvCamera:
    known = [model.camera(i).name for i in range(model.ncam)]
    if name not in known:
        raise ConfigError(f"cameras: expected some of {', '.join(known)}, found {name!r}")
    camera = mujoco.MjvCamera()
    camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(name).id
    return camera
