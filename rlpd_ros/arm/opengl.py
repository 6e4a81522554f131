# SPDX-License-Identifier: Apache-2.0
"""By which OpenGL MuJoCo draws, without a display: EGL (a GPU's, or Mesa's software renderer) or OSMesa (software).

MuJoCo is not imported here: it reads MUJOCO_GL when it first is.
"""

from __future__ import annotations

import ctypes
import os

_PLATFORM_DEVICE = 0x313F  # EGL_PLATFORM_DEVICE_EXT: a device itself, without windows
_MAX_DEVICES = 16
NEEDED = "install libosmesa6, or choose a renderer by MUJOCO_GL=osmesa or egl"


def find_backend() -> str:
    """Return what MUJOCO_GL says; else "egl" or "osmesa", whichever works here; else ""."""
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if chosen:
        return chosen
    if _egl_works():
        return "egl"
    return "osmesa" if _load("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so") else ""


def _load(*names: str) -> ctypes.CDLL | None:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _egl_works() -> bool:
    """Tell whether EGL has a device. To try is no test: in one process PyOpenGL loads one kind of OpenGL only."""
    egl = _load("libEGL.so.1")
    if egl is None:
        return False
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    addresses = [egl.eglGetProcAddress(name) for name in (b"eglQueryDevicesEXT", b"eglGetPlatformDisplayEXT")]
    if not all(addresses):
        return False
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    query = ctypes.CFUNCTYPE(ctypes.c_uint, integer, ctypes.POINTER(pointer), ctypes.POINTER(integer))(addresses[0])
    display_of = ctypes.CFUNCTYPE(pointer, integer, pointer, pointer)(addresses[1])
    egl.eglInitialize.argtypes = [pointer, pointer, pointer]
    devices, count = (pointer * _MAX_DEVICES)(), integer()
    if not query(_MAX_DEVICES, devices, ctypes.byref(count)):
        return False
    displays = [display_of(_PLATFORM_DEVICE, device, None) for device in devices[:count.value]]
    return any(display and egl.eglInitialize(display, None, None) for display in displays)
