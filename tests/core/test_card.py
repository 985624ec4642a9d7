"""The card carries an export's contract unchanged, and refuses what it does not understand."""

import json

import pytest

from facedancer.core.card import CARD_NAME, ExportCard, read_card, write_card
from facedancer.core.console import UserError

CARD = ExportCard(
    family="facedancer",
    image_size=128,
    embedding_dim=64,
    shrink_factor=0.75,
    identity_encoder="dlib_resnet",
    value_range=(0.0, 1.0),
    step=700,
    training={"data": "drawn faces", "losses": {"identity": 10.0}},
    licence="research only",
    files={"facedancer_0.h5": "abc"},
)


def change(tmp_path, **values):
    write_card(tmp_path, CARD)
    card = json.loads((tmp_path / CARD_NAME).read_text())
    card.update(values)
    (tmp_path / CARD_NAME).write_text(json.dumps({key: value for key, value in card.items() if value is not ...}))


def test_round_trip(tmp_path):
    write_card(tmp_path / "export", CARD)
    assert read_card(tmp_path / "export" / "facedancer_0.h5") == CARD


def test_the_originals_files_have_no_card(tmp_path):
    assert read_card(tmp_path / "FaceDancer_config_c_HQ.h5") is None


def test_a_need_that_nothing_gives_is_refused(tmp_path):
    change(tmp_path, needs="a mirror")
    with pytest.raises(UserError, match="Invalid enum value 'a mirror'"):
        read_card(tmp_path / "x.h5")


def test_a_card_of_decoders(tmp_path):
    card = ExportCard("facedancer", 64, None, needs="decoder", decoders=("ann", "ben"))
    write_card(tmp_path, card)
    assert read_card(tmp_path / "x.h5") == card
    change(tmp_path, decoders=["ann"])
    with pytest.raises(UserError, match="decoders disagree"):
        read_card(tmp_path / "x.h5")


def test_unknown_fields_are_refused(tmp_path):
    change(tmp_path, mask="soft")
    with pytest.raises(UserError, match=r"unknown field .mask."):
        read_card(tmp_path / "x.h5")


@pytest.mark.parametrize(
    "values",
    [{"image_size": "128"}, {"embedding_dim": None}, {"family": 3}, {"shrink_factor": "1"}, {"value_range": 2}],
)
def test_values_of_another_type_are_refused(tmp_path, values):
    change(tmp_path, **values)
    with pytest.raises(UserError, match=r"card\.json: .*not the card of an export"):
        read_card(tmp_path / "x.h5")


@pytest.mark.parametrize("text", ["", "[1, 2]", "3", '{"family": "facedancer"', '{"family": "facedancer"}'])
def test_damaged_cards_are_refused(tmp_path, text):
    (tmp_path / CARD_NAME).write_text(text)
    with pytest.raises(UserError, match=r"card\.json: .*not the card of an export"):
        read_card(tmp_path / "x.h5")
