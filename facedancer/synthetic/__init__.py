"""Rendered people who do not exist, with exact truth: landmarks, labels, pose, and the true result of a swap.

`draws` draws an identity, the rest of a person, and a scene, each from its own seed; `render` makes the picture:

    from facedancer.synthetic.draws import draw_identity, draw_person, draw_scene
    from facedancer.synthetic.render import render

    face = render(draw_identity(1), draw_person(2), draw_scene(3), size=256)  # a truth.SyntheticFace

The true swap of source A onto target B is `render(a.identity, b.person, b.scene)`. Rendering runs on the CPU, in NumPy
and Numba, without a neural network; its meshes are in `head.npz` (CC0, see `head_LICENSE.md`).
"""
