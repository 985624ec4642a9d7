"""Pictures for the tests of synthetic faces."""

from dataclasses import replace

from facedancer.synthetic.draws import draw_identity, draw_person
from facedancer.synthetic.render import render
from facedancer.synthetic.scenes import portrait_scene


def bare(person):
    """The person with neither beard nor long hair, which cover the face."""
    return replace(person, beard="none", hair=replace(person.hair, style="buzz"))


def portrait_of(number, size=128, **changes):
    """A picture of somebody from the front in even light, nothing in front of the face; `changes` are the scene's."""
    scene = replace(portrait_scene(number), **changes)
    return render(draw_identity(number), bare(draw_person(number)), scene, size=size)
