"""Variants are read as flags are, and whatever is wrong with one is a line before any work."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from ml_collections import ConfigDict

from configs import cifar10, quickstart
from configs.base import FEVER_OOD
from dream_jax.ablation import program
from dream_jax.ablation.report import ordered
from dream_jax.ablation.variants import RECIPE, asked_for, read_variants, with_flags
from dream_jax.errors import UserError


@pytest.fixture
def config(toy) -> ConfigDict:
    config = toy.config()
    config.data.tuning = ("noise",)
    config.ablation.variants = (("other", "sampling.scale=0.5"),)
    return config.lock()  # as flags leave it


def refused(config: ConfigDict, workdir) -> str:
    """The one line with which variants are refused, which leaves nothing behind."""
    with pytest.raises(UserError) as caught:
        program.run(config, workdir)
    assert len(str(caught.value).splitlines()) == 1
    assert not workdir.exists()
    return str(caught.value)


def test_settings_are_written_as_for_flags(config):
    changed = with_flags(
        config,
        (
            *("sampling.k=7", "sampling.scale=1", "inliers.confirmed=true", "data.ood=a,b"),
            *("decoding.prompts=('one {name}', 'two, {name}')", "decoding.id_prompt=a = {name}"),
            "method_options.dream_ood.weight=2.5",
            # which the configuration does not have:
            *("method_options.dream_ood.phi_hidden=8", "method_options.godin.similarity=inner"),
            "method_options['vos/knn'].k=3",
        ),
    )
    assert changed.sampling.k == 7 and changed.inliers.confirmed is True
    assert isinstance(changed.sampling.scale, float) and changed.sampling.scale == 1
    assert changed.decoding.prompts == ("one {name}", "two, {name}")
    assert changed.decoding.id_prompt == "a = {name}" and changed.data.ood == ("a,b",)
    assert changed.method_options.dream_ood.to_dict() == {
        **{"weight": 2.5, "zoom": 4, "phi_hidden": 8},
        **FEVER_OOD,
    }
    assert changed.method_options.godin.similarity == "inner"
    assert changed.method_options["vos/knn"].k == 3
    assert config.sampling.k == 10 and "phi_hidden" not in config.method_options.dream_ood


def test_a_variant_is_a_run_of_one_row_on_the_tuning_sets(config):
    config.ablation.seeds, config.data.shifted = (3, 4), ("blur",)
    config.ablation.variants = (
        ("flags", "--config.sampling.scale=0.5", "classifier.collapse_below=0.2"),
        ("plain", "ablation.row=energy"),
    )
    recipe, flags, plain = read_variants(config)
    assert [v.name for v in (recipe, flags, plain)] == [RECIPE, "flags", "plain"]
    assert flags.changes == ("sampling.scale=0.5", "classifier.collapse_below=0.2")
    assert (recipe.settings.sampling.scale, flags.settings.sampling.scale) == (0.2, 0.5)
    assert recipe.settings.methods == ("dream_ood",) and plain.settings.methods == ("energy",)
    for variant in (recipe, flags, plain):
        data = variant.settings.data
        assert variant.settings.seeds == (3, 4) and data.ood == ("noise",) and data.shifted == ()
    config.ablation.seeds = ()
    assert read_variants(config)[0].settings.seeds == (0,)
    config.seeds = (8,)
    assert read_variants(config)[0].settings.seeds == (8,)


def test_the_folder_is_of_the_settings(config):
    recipe, other = read_variants(config)
    assert recipe.folder.startswith("the-recipe-") and other.folder.startswith("other-")
    assert recipe.folder[-8:] != other.folder[-8:]
    more = replace(other.settings, seeds=(1, 2), save_every=7)
    assert replace(other, settings=more).folder == other.folder
    assert replace(other, settings=replace(more, seed=5)).folder != other.folder
    assert replace(other, name="../É/…").folder == f"variant-{other.folder[-8:]}"


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        (("x", "sampling.kk=3"), "config.sampling.kk is no setting; allowed: "),
        (("x", "samplin.k=3"), "config.samplin.k is no setting"),
        (("x", "sampling.k.x=3"), "config.sampling.k.x is no setting"),
        (("x", "nonsense=3"), "config.nonsense is no setting"),
        (("x", "sampling.k=many"), "config.sampling.k=many"),
        (("x", "sampling.k=0.5"), "config.sampling.k=0.5"),
        (("x", "sampling.k="), "config.sampling.k="),
        (("x", "sampling={}"), "config.sampling is no setting"),
        (("x", "sampling[0]=3"), "'sampling[0]=3' is no setting; it must be written"),
        (("x", "sampling.k=0"), "config.sampling.k is 0; it must be a whole number"),
        (("x", "inliers.confirmed=perhaps"), "config.inliers.confirmed=perhaps"),
        (("x", "decoding.prompts=(1, 2)"), "config.decoding.prompts is (1, 2); it must be one or"),
        (("x", "model.arch=resnet19"), "config.model.arch is 'resnet19'; it must be one of"),
        (("x", "sampling.k"), "'sampling.k' is no setting; it must be written as field=value"),
        (("x", "=3"), "'=3' is no setting"),
        (("x", "--k=3"), "'--k=3' is no setting"),
        (("x", "sampling.k=3", "sampling.k=4"), "config.sampling.k is there twice"),
        (("x",), "it changes nothing; give it settings"),
        (("other", "sampling.k=3"), "'other' is there twice"),
        ((RECIPE, "sampling.k=3"), "'the recipe' is what the configuration is called"),
        (("x", "sampling.k=10"), "sampling.k=10 changes nothing that results depend on"),
        (("x", "inliers.k=7"), "they would be those of 'the recipe'"),
        (("x", "classifier.collapse_below=0.2"), "they would be those of 'the recipe'"),
        (("x", "sampling.scale=.5", "inliers.k=7"), "they would be those of 'other'"),
        (("x", "data.ood=faces"), "config.data.ood is the same for all variants"),
        (("x", "data.tuning=faces"), "config.data.tuning is the same for all"),
        (("x", "data.class_names={'0': 'a'}"), "config.data.class_names is the same for all"),
        (("x", "seeds=(1,)"), "config.seeds is the same for all"),
        (("x", "ablation.seeds=(1,)"), "config.ablation.seeds is the same for all"),
        (("x", "ablation.variants=()"), "config.ablation.variants is the same for all"),
        (("x", "tuning.seed=1"), "config.tuning.seed is the same for all"),
        (("x", "methods=energy"), "config.methods is the same for all"),
        (("x", "ablation.row=magic"), "config.ablation.row is 'magic'; it must be one of"),
        (("x", "ablation.row=all"), "config.ablation.row is 'all'; it must be one of"),
        (
            ("x", "ablation.row=outlier_exposure", "data.auxiliary=()"),
            "config.data.auxiliary is (); it must name sets of real outliers for some rows",
        ),
        (("x", "method_options.dream_ood.zooom=2"), "zooom"),
        (("x", "method_options.dream_oood.zoom=2"), "config.method_options.dream_oood is"),
    ],
)
def test_a_bad_variant_is_named(config, tmp_path, variant, said):
    config.ablation.variants = (*config.ablation.variants, variant)
    message = refused(config, tmp_path / "run")
    assert message.startswith(f"config.ablation.variants: {variant[0]!r}")
    assert said in message


def test_nothing_to_compare_is_refused(config, tmp_path):
    config.data.tuning = ()
    assert "config.data.tuning is (); it must name" in refused(config, tmp_path / "run")
    config.data.tuning, config.ablation.variants = ("noise",), ()
    assert "config.ablation.variants is (); it must list" in refused(config, tmp_path / "run")
    config.ablation.variants = ("sampling.k=3", "sampling.k=4")
    assert "('few features', 'sampling.k=50'), or empty" in refused(config, tmp_path / "run")
    config.ablation.variants, config.ablation.row = (("x", "sampling.k=3"),), "dream"
    message = refused(config, tmp_path / "run")
    assert message.startswith("config.ablation.row is 'dream'; it must be one of msp,")


def test_all_variants_are_checked_before_the_first_is_made(config, tmp_path):
    config.ablation.variants = (("x", "latent_space.features_per_class=400", "sampling.k=41"),)
    with pytest.raises(UserError, match=r"'x': config\.sampling\.k is 41; it must be at most 40"):
        program.run(config, tmp_path)
    assert not list(tmp_path.rglob("latent_space"))


def test_a_part_of_the_list_is_asked_for_by_how_names_begin(config, tmp_path):
    config.ablation.variants = (
        ("scale: small", "sampling.scale=0.05"),
        ("scale: large", "sampling.scale=0.4"),
        ("k 5", "sampling.k=5"),
    )
    variants = read_variants(config)
    assert asked_for(variants, ()) == {RECIPE, "scale: small", "scale: large", "k 5"}
    assert asked_for(variants, ("scale",)) == {RECIPE, "scale: small", "scale: large"}
    assert asked_for(variants, ("k 5", "scale: l")) == {RECIPE, "k 5", "scale: large"}
    config.ablation.variants += (("k 50", "sampling.k=40"),)
    assert asked_for(read_variants(config), ("k 5",)) == {RECIPE, "k 5"}  # the one of that name
    config.ablation.variants = config.ablation.variants[:-1]
    config.ablation.only = ("k,size",)  # as a flag gives them
    message = refused(config, tmp_path / "run")
    assert message.startswith("config.ablation.only names 'size'; no variant's name begins so: ")
    assert message.endswith("the recipe, scale: small, scale: large, k 5")


def test_settings_that_have_an_order_are_found(config):
    config.ablation.variants = (
        *((f"scale {s}", f"sampling.scale={s}") for s in (0.05, 0.4)),
        *((f"weight {w}", f"method_options.dream_ood.weight={w}") for w in (2.0, 3.0)),
        ("both", "sampling.scale=0.3", "sampling.k=5"),
        ("k 5", "sampling.k=5"),  # one alone
        *((f"noise {n}", f"sampling.noise={n}") for n in ("shared", "own")),  # no number
        *((f"batch {b}", f"inliers.confirmed={b}") for b in (True, False)),
    )
    variants = {variant.name: variant for variant in read_variants(config)}
    runs = {name: SimpleNamespace(settings=own.settings) for name, own in variants.items()}
    changes = {name: {"changes": list(own.changes)} for name, own in variants.items()}
    assert ordered(runs, changes) == {
        "sampling.scale": {"scale 0.05": 0.05, "scale 0.4": 0.4, RECIPE: 0.2},
        "method_options.dream_ood.weight": {"weight 2.0": 2.0, "weight 3.0": 3.0, RECIPE: 1.0},
    }


def test_the_variants_of_the_quickstart_are_allowed():
    variants = read_variants(quickstart.get_config())
    assert len({variant.folder[-8:] for variant in variants}) == len(variants) > 10
    assert all(v.settings.data.ood == ("noise", "alphabets") for v in variants)
    assert not set(variants[0].settings.seeds) & {0, 1, 2}  # those of the table


def test_the_variants_of_photographs_are_allowed():
    """With the sets of the quickstart in colour, which come inside of packages."""
    variants = read_variants(cifar10.get_config("quickstart"))
    assert len({variant.folder[-8:] for variant in variants}) == len(variants) > 30
    assert len(asked_for(variants, ("claim",))) == 13
    texts = [v for v in variants if v.settings.sampling.method == "prompts"]
    assert len(texts) == 4 and not set(variants[0].settings.seeds) & {0, 1, 2}
