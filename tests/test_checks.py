"""A configuration is checked as a whole before any work, and refused in one line."""

import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from toy import digits_small

from configs import cifar10, cifar100, imagefolder, imagenet100, quickstart
from dream_jax import pipeline
from dream_jax.checks import check
from dream_jax.config_tree import run_name, shown
from dream_jax.data.image_sets import IdSet
from dream_jax.data.registry import add
from dream_jax.errors import UserError
from dream_jax.files import read_json
from dream_jax.rows import candidates as tried
from dream_jax.settings import as_dict, field_types


def refusal(config: ConfigDict) -> str:
    with pytest.raises(UserError) as caught:
        check(config)
    message = str(caught.value)
    assert "\n" not in message
    return message


def with_value(config: ConfigDict, field: str, value) -> ConfigDict:
    """The configuration with a value of any type in a field."""
    section = config
    *parents, last = field.split(".")
    for part in parents:
        section = section[part]
    del section[last]  # with its type
    section[last] = value
    return config


@pytest.mark.parametrize("file", [cifar10, cifar100, imagefolder, imagenet100, quickstart])
def test_configurations_of_the_project_pass(toy, file):
    for settings in (check(toy.config()), check(file.get_config())):
        assert settings.sampling.k > 0
    assert settings.name == file.__name__.removeprefix("configs.")


def test_all_rows_can_be_asked_for_in_every_configuration():
    for file in (cifar10, cifar100, imagefolder, imagenet100, quickstart):
        config = file.get_config()
        config.methods = ("all",)
        assert check(config).methods == ("all",)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("seed", -1, "at least 0"),
        ("seed", 1.5, "a whole number"),
        ("save_every", 0, "at least 1"),
        ("eval_batch_size", True, "a whole number"),
        ("seeds", (0, -1), "at least 0"),
        ("seeds", (1, 1), "each once"),
        ("seeds", 1, "whole numbers"),
        ("methods", ("energy", "magic"), "allowed: all, every, or some of msp"),
        ("methods", ("vos/energy", "vos"), "'vos' is there twice"),
        ("methods", ("vos/godin",), "pairs training/detector"),
        ("methods", ("energy/knn",), "'energy/knn' is no row"),
        ("methods", (), "names of rows"),
        ("methods", ("msp", "msp"), "each once"),
        ("method_options", 3, "settings"),
        ("data.auxiliary", "noise", "names of sets"),
        ("data.auxiliary_count", 0, "at least 1"),
        ("data.id", "numerals", "digits"),
        ("data.ood", ("letters", "numerals"), "letters"),
        ("data.ood", "letters", "one or more of"),
        ("data.id", "cifar1000", "digits"),
        ("data.id", "letters=folder", "digits"),
        ("data.ood", ("letters", "x="), "name=folder"),
        ("data.ood", ("letters", "cifar10", "letters=folder"), "a name of its own"),
        ("data.ood", ("id=folder",), "a name of its own"),
        ("data.folder", 3, "a folder"),
        ("data.class_names", "screw", "a class name"),
        ("data.unreadable", "ignore", "skip, stop"),
        ("data.hold_bytes", -1, "at least 0"),
        ("data.workers", -1, "at least 0"),
        ("data.image_size", 8, "at least 28"),
        ("data.channels", 2, "1, 3"),
        ("data.tfds_dir", 3, "a text"),
        ("data.class_tokens", "zero", "a word"),
        ("model.arch", "resnet19", "airbench, resnet18, resnet34, resnet50, resnet8"),
        ("model.stem", "large", "imagenet, small, stride2, whitened"),
        ("latent_space.batch_size", 0, "at least 1"),
        ("latent_space.temperature", 0.0, "above 0"),
        ("latent_space.augment", "cutout", "affine"),
        ("latent_space.optimizer.learning_rate", 0.0, "above 0"),
        ("latent_space.optimizer.momentum", 1.5, "at most 1"),
        ("sampling.k", 0, "at least 1"),
        ("sampling.k", 41, "features_per_class = 40"),
        ("sampling.boundary", 41, "features_per_class = 40"),
        ("sampling.keep", 51, "sampling.candidates = 50"),
        ("sampling.scale", -0.1, "above 0"),
        ("sampling.scale", float("nan"), "a number"),
        ("sampling.method", "dream", "bood, core, interpolation, knn, mean"),
        ("bood.step", 0.0, "above 0"),
        ("bood.step", 1.5, "at most 1"),
        ("bood.share", 5.0, "at most 1"),  # a percentage
        ("bood.share", 0.0, "above 0"),
        ("bood.beyond", -1, "at least 0"),
        ("bood.beyond", 2.0, "a whole number"),
        ("bood.most_steps", 0, "at least 1"),
        ("bood.most_steps", 10**9, "at most 10000"),
        ("generator.scheduler", "heun", "ddim"),
        ("generator.revision", 1, "a commit or tag"),
        ("generator.precision", "float64", "bfloat16, float16, float32"),
        ("decoding.prompts", ("a digit",), "{name}"),
        ("decoding.guidance", -1.0, "at least 0"),
        ("decoding.batch_size", -5, "at least 0"),
        ("decoding.vae_batch_size", "auto", "a whole number of at least 0"),
        ("eval_batch_size", -1, "at least 0"),
        ("decoding.by_name", 0, "above 0"),
        ("decoding.resize", "bicubic", "antialiased, bilinear, mixed, nearest"),
        ("decoding.by_name_test", 0, "at least 1"),
        ("classifier.batch_size", 0, "at least 1"),
        ("classifier.round_trip_share", 1.2, "at most 1"),
        ("classifier.filter_confidence", 0.0, "above 0"),
        ("classifier.optimizer.weight_decay", float("inf"), "a number"),
        ("seed", 2**32, "at most 4294967295"),  # JAX draws the same from it as from 0
        ("tuning.seed", 2**63, "at most 4294967295"),
        ("seeds", (0, 2**64), "below 2^32"),
        ("name", "a\nb", "a text"),
        ("data.image_size", 10**6, "at most 4096"),
        ("decoding.image_size", 10**6, "at most 4096"),
        ("decoding.outliers", 10**12, "at most 10000000"),
        ("model.width", 10**6, "at most 1024"),
        ("eval_batch_size", 2**31 - 1, "with config.data.image_size = 32 it must be at most"),
        ("decoding.batch_size", 2**31 - 1, "with config.decoding.image_size = 32"),
        ("sampling.candidates", 10**8, "with 10 features drawn in a round"),
        ("latent_space.temperature", 1e-50, "above 0"),
        ("classifier.optimizer.learning_rate", 10**400, "above 0"),
        ("decoding.guidance", 1e300, "at least 0"),
        ("decoding.prompts", (1,), "{name}"),
        ("decoding.prompts", ("{name} {color}",), "no other braces"),
        ("decoding.prompts", ("{name", "{name}"), "no other braces"),
        ("decoding.prompts", ("{name!r:>10}",), "{name}"),
        ("decoding.prompts", ("{{name}}",), "no other braces"),
        ("decoding.prompts", ("{name} {}",), "no other braces"),
        ("decoding.id_prompt", "{name} }", "no other braces"),
        ("data.shifted", ("blur", "nope"), "there is no shifted set 'nope'"),
        ("data.shifted", ("blur", "blur=folder"), "a name of its own"),
        ("data.tuning", ("nope",), "there is no tuning set 'nope'"),
        ("data.auxiliary", ("nope",), "there is no auxiliary set 'nope'"),
        ("data.tuning", ("id=folder",), "a name of its own"),
        ("data.ood", ("allow_pickle=folder",), "a name of its own"),
        ("data.folder", "x" * 300, "a folder"),
        ("data.folder", "~no_such_user/x", "a folder"),
        ("data.folder", "data/images", "must be empty, because data.id = digits_ignoring"),
        ("sampling", 3, "a section with the fields k, boundary"),
        ("data", None, "a section with the fields id"),
        ("method_options", {1: {}}, "settings"),
    ],
)
def test_bad_value_is_named_with_what_is_allowed(toy, field, value, allowed):
    config = with_value(toy.config(), field, value)
    if "ignoring" in allowed:
        add(IdSet("digits_ignoring", digits_small, ignores=("folder",)))
        config.data.id = "digits_ignoring"
    message = refusal(config)
    assert message.startswith(f"config.{field} is ")
    assert shown(value)[:100] in message
    assert allowed in message


def test_settings_of_the_other_way_to_sample_are_not_asked_for(toy):
    config = toy.config()
    config.sampling.update(k=300, boundary=300)  # more than a class has features
    assert refusal(config).startswith("config.sampling.k is 300")
    for method in ("vocabulary", "bood"):
        config.sampling.method = method
        assert check(config).sampling.k == 300  # for which they have no use


def test_names_of_tfds_and_folders_pass_whether_they_are_here_or_not(toy):
    config = with_value(toy.config(), "data.id", "cifar100")
    ood = ("svhn_cropped", "cifar10_corrupted/gaussian_noise_1", "isun=no/such folder")
    check(with_value(config, "data.ood", ood))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"knn": {"k": 0}}, "config.method_options: knn: k is 0; it must be a whole"),
        ({"knn": {"n": 3}}, "config.method_options: knn has no setting 'n'; allowed: k"),
        ({"knn": 3}, "config.method_options is"),
        ({"vin": {}}, "config.method_options.vin is {}; allowed: settings of one of msp"),
        ({"dream_ood": {"weight": -1}}, "dream_ood: weight is -1; it must be a number of at least"),
        ({"energy": {"weight": 1}}, "energy has no setting 'weight'; allowed: temperature"),
        ({"npos": {"regulariser": ""}}, "npos has no setting 'regulariser'; allowed: weight"),
        (
            {"cross_entropy": {"weight": 1}},
            "cross_entropy has no setting 'weight'; allowed: regulariser, regulariser_weight",
        ),
        (
            {"vos": {"regulariser": "spectral_norm"}},
            "one of condition_number, smallest_singular_value",
        ),
        ({"dream_ood": {"regulariser_weight": -1}}, "regulariser_weight is -1; it must be"),
        ({"npos/knn": {"n": 1}}, "knn has no setting 'n'; allowed: k"),
    ],
)
def test_settings_of_rows(toy, options, words):
    config = toy.config()
    config.methods = ("msp", "knn")
    config.method_options = ConfigDict(options)
    assert words in refusal(config)
    config.method_options = ConfigDict({"vim": {"dimension": 7}})  # is no row here
    check(config)


def test_rows_and_sets_in_one_text(toy):
    config = toy.config()
    config.methods = ("msp, dream_ood",)
    assert check(config).methods == ("msp", "dream_ood")
    assert config.methods == ("msp, dream_ood",)
    config.data.ood = ("letters,faces", "mine=a,b")
    assert check(config).data.ood == ("letters", "faces", "mine=a,b")


@pytest.mark.parametrize(
    ("candidates", "words"),
    [
        ({"knn": {"k": (0, 3)}}, "config.tuning.candidates.knn: knn: k is 0; it must be a whole"),
        ({"knn": {"n": (1,)}}, "config.tuning.candidates.knn: knn has no setting 'n'"),
        ({"knn": {"k": 3}}, "it must be a list of values for each of some settings of one of"),
        ({"knn": {"k": ()}}, "no list may be empty"),
        ({"knn": {}}, "it must be a list of values for each of some settings of one of"),
        ({"vos/energy": {"weight": (1,)}}, "has 'vos/energy'; the name of its row is 'vos'"),
        ({"knm": {"k": (3,)}}, "it must be a list of values for each of some settings of one of"),
    ],
)
def test_candidates_for_tuning(toy, candidates, words):
    config = toy.config()
    config.tuning.candidates = ConfigDict(candidates)
    assert words in refusal(config)
    config.tuning.candidates = ConfigDict({"dream_ood": {"weight": (1, 2), "zoom": (1, 4)}})
    check(config)
    assert len(tried(check(config), "dream_ood")) == 4


def test_a_set_is_tested_or_tuned_or_trained_on(toy):
    config = with_value(toy.config(), "data.ood", ("letters", "noise"))
    config.data.tuning = ("noise",)
    assert refusal(config).startswith("config.data.tuning has 'noise' and data.ood has 'noise'")


def test_record_of_tuning_that_is_not_there(toy):
    message = refusal(with_value(toy.config(), "tuning.record", "no/file.json"))
    assert message.startswith("config.tuning.record is 'no/file.json'; there is no such file")


@pytest.mark.parametrize(
    "content",
    [
        *("{}", "[]", "no JSON", '{"rows": {"knn": {}}, "sets": [], "seed": 1}'),
        '{"rows": {"knn": {"candidates": [], "chosen": {}}}, "sets": [], "seed": 1}',
    ],
)
def test_record_of_tuning_that_is_none(toy, tmp_path, content):
    path = tmp_path / "tuning.json"
    path.write_text(content)
    message = refusal(with_value(toy.config(), "tuning.record", str(path)))
    assert message.startswith(f"config.tuning.record is {str(path)!r}, which is damaged or no ")


def test_record_of_tuning_with_settings_that_are_gone(toy, tmp_path):
    record = read_json(Path(quickstart.get_config().tuning.record))
    record["rows"]["knn"]["chosen"] = {"neighbours": 3}
    path = tmp_path / "tuning.json"
    path.write_text(json.dumps(record))
    message = refusal(with_value(toy.config(), "tuning.record", str(path)))
    assert "it chooses 'neighbours' for 'knn', which has no such setting" in message


@pytest.mark.parametrize("config", [None, [], {"name": "x"}, 3])
def test_what_is_no_configuration(config):
    for read in (check, run_name):
        with pytest.raises(UserError, match=r"^--config: its get_config\(\) returns .*ConfigDict$"):
            read(config)


@pytest.mark.parametrize("name", [3, None, ()])
def test_name_of_a_run_that_is_no_text(name):
    with pytest.raises(UserError, match=r"^config\.name is .*; it must be a text$"):
        run_name(ConfigDict({"name": name}))


def test_home_folders_in_every_path(toy, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(toy.generator, tmp_path / "generator")
    shutil.copy(quickstart.get_config().tuning.record, tmp_path / "tuning.json")
    config = toy.config()
    config.generator.path, config.tuning.record = "~/generator", "~/tuning.json"
    config.init_from, config.data.tfds_dir = "~/checkpoints", "~/tfds"
    config.data.ood = ("letters", "mine=~/a,b")
    config.data.id, config.data.folder = "imagefolder", "~/images"
    settings = check(config)
    home = str(tmp_path)
    assert settings.generator.path == f"{home}/generator"
    assert settings.tuning.record == f"{home}/tuning.json"
    assert settings.init_from == f"{home}/checkpoints"
    assert settings.data.tfds_dir == f"{home}/tfds"
    assert settings.data.folder == f"{home}/images"
    assert settings.data.ood == ("letters", f"mine={home}/a,b")


def test_numpy_scalars_become_plain_values(toy):
    config = with_value(toy.config(), "sampling.k", np.int64(5))
    config = with_value(config, "sampling.scale", np.float32(0.5))
    config = with_value(config, "inliers.confirmed", np.bool_(True))
    config = with_value(config, "seeds", [np.int32(3)])
    settings = check(config)
    assert type(settings.sampling.k) is int and type(settings.sampling.scale) is float
    assert settings.inliers.confirmed is True and settings.seeds == (3,)
    json.dumps(settings.seeds)


WRONG = (
    *(None, True, -1, 0, 1, 3.5, -0.0, 0.0, float("nan"), float("inf"), 10**400, -(10**400)),
    *(
        2**31,
        2**32,
        2**64,
        1e300,
        1e-300,
        "",
        " ",
        "3",
        "nan",
        "a\nb",
        "\0",
        "{name}",
        "{",
        "\udcff",
    ),
    *("~", "/", "x" * 5000, "=", "a=", "=a", (), (1,), ("",), (None,), ((),), [], [1, "a"], {}),
    *({"a": 1}, {"a": None}, {1: "a"}, {"": ""}, {"a": {"b": 1}}, b"a", 1j, {1, 2}, object, print),
    *(np.int64(3), np.float16(0.5), np.array([1, 2]), np.str_("a"), Path("a")),
)


@pytest.mark.parametrize("field", field_types())
def test_any_value_of_a_field_is_accepted_or_refused_in_one_line(toy, field):
    """What is accepted can be written as JSON; all else is one line."""
    rng, right = random.Random(field), toy.config()
    for value in rng.sample(WRONG, 25):
        value = ConfigDict(value) if isinstance(value, dict) and "a" in value else value
        try:
            settings = check(with_value(right.copy_and_resolve_references(), field, value))
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and len(str(error)) < 3000, value
        else:
            json.dumps(as_dict(settings))


def test_outlier_exposure_needs_real_outliers(toy):
    config = with_value(toy.config(), "methods", ("outlier_exposure",))
    config.data.auxiliary = ()
    assert refusal(config).startswith("config.data.auxiliary is (); it must name sets of real outl")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"methods": ("knn",), "method_options": {"knn": {"k": 401}}},
            r"detector knn: k is 401; it must be at most 400",
        ),
        ({"methods": ("vos",)}, r"method vos: queue is 400; it must be below 40, the images"),
        (
            {"sampling.k": 41, "latent_space.features_per_class": 50},
            r"config.sampling.k is 41; it must be at most 40, the number of images of class 'zero'",
        ),
        (
            {"data.class_tokens": {"eleven": "ten"}},
            r"class_tokens names \['eleven'\]; allowed: zer",
        ),
        ({"decoding.name_suffixes": {"eleven": "x"}}, r"name_suffixes names \['eleven'\]; allowed"),
        ({"report.figure_class": "eleven"}, r"config.report.figure_class is 'eleven'; allowed: ze"),
    ],
)
def test_settings_that_the_data_do_not_allow_are_refused_before_any_work(
    toy, tmp_path, changes, words
):
    config = toy.config()
    for field, value in changes.items():
        value = ConfigDict(value) if isinstance(value, dict) else value
        config = with_value(config, field, value)
    with pytest.raises(UserError, match=words):
        pipeline.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_image_folder_needs_a_folder(toy):
    message = refusal(with_value(toy.config(), "data.id", "imagefolder"))
    assert message.startswith("config.data.folder is ''")


def test_methods_without_outliers_stand_alone(toy):
    check(with_value(toy.config(), "methods", ("energy",)))


def with_dimensions(config: ConfigDict, start: str, **dimensions: int) -> None:
    config.init_from = start
    config.method_options = ConfigDict(
        {name: {"feature_dimension": value} for name, value in dimensions.items()}
    )


def test_settings_of_the_classifier_that_do_not_go_together(toy):
    def refused(**changes) -> str:
        config = toy.config()
        config.update_from_flattened_dict(changes)
        return refusal(config)

    band = {"classifier.filter_confidence": 0.5, "classifier.filter_least_confidence": 0.5}
    assert "filter_least_confidence is 0.5; it must be below classifier.filter" in refused(**band)
    patches = {"classifier.outlier_view": "patches", "decoding.image_size": 31}
    expected = "config.decoding.image_size is 31; with classifier.outlier_view = 'patches' it must"
    assert expected in refused(**patches)
    config = toy.config()
    config.update_from_flattened_dict(patches | {"decoding.image_size": 32})
    check(config)


@pytest.mark.parametrize("name", ["cross_entropy", "knn", "godni"])
def test_what_cannot_start_from_the_plain_classifier_is_refused(toy, name):
    config = toy.config()
    config.fine_tune.rows = ("godin", name)
    expected = f"config.fine_tune.rows is ('godin', {name!r}); {name!r} is no training that can"
    assert expected in refusal(config)


def test_a_training_starts_from_a_network_of_its_shape(toy):
    config = toy.config()
    for start in ("cross_entropy", "a/folder"):
        with_dimensions(config, start, dream_ood=12)
        expected = f"dream_ood.feature_dimension is 12; with init_from = {start!r} it must be that"
        assert expected in refusal(config)
    for start, dimensions in (
        ("", {"dream_ood": 12}),
        ("cross_entropy", {"dream_ood": 12, "cross_entropy": 12, "vos": 7}),
    ):
        with_dimensions(config, start, **dimensions)
        check(config)
    with_dimensions(config, "", cross_entropy=12)
    check(config)
    config.methods = ("energy_fine_tuning",)  # which always starts from the plain classifier
    expected = "config.method_options.energy_fine_tuning.feature_dimension is 0; it must be that of"
    assert expected in refusal(config)
    with_dimensions(config, "", cross_entropy=12, energy_fine_tuning=12)
    check(config)


def test_no_images_by_name_are_needed_where_no_share_is(toy):
    config = with_value(toy.config(), "decoding.by_name", 0)
    check(with_value(config, "classifier.by_name_share", 0.0))


@pytest.mark.parametrize("field", field_types())
def test_missing_field_is_named(toy, field):
    config = toy.config()
    section = config
    *parents, last = field.split(".")
    for part in parents:
        section = section[part]
    del section[last]
    assert refusal(config).startswith(f"config.{field} is missing; it must be ")


def test_missing_section_is_named_by_its_first_field(toy):
    config = toy.config()
    del config.sampling
    assert refusal(config).startswith("config.sampling.k is missing")


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ("", "there is no folder"),
        ("unet", "lacks the part unet"),
        ("tokenizer", "lacks the part tokenizer"),
        ("model_index.json", "lacks model_index.json"),
        ("vae/diffusion_flax_model.msgpack", "lacks weights"),
        ("text_encoder/config.json", "config.json cannot be read"),
    ],
)
def test_incomplete_generator_folder(toy, tmp_path, lost, named):
    folder = tmp_path / "generator"
    shutil.copytree(toy.generator, folder)
    path = folder / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    message = refusal(with_value(toy.config(), "generator.path", str(folder)))
    assert message.startswith("generator.path: ")
    assert str(folder) in message
    assert named in message


def test_generator_by_name_needs_a_pinned_revision(toy):
    config = with_value(toy.config(), "generator.path", "someone/something")
    message = refusal(config)
    assert message.startswith("generator.revision is empty")
    check(with_value(config, "generator.revision", "v1"))  # downloaded when it is run


def test_generator_whose_parts_do_not_fit(toy, tmp_path):
    folder = tmp_path / "generator"
    shutil.copytree(toy.generator, folder)
    path = folder / "unet" / "config.json"
    text = path.read_text()
    path.write_text(re.sub(r'"cross_attention_dim": \d+', '"cross_attention_dim": 48', text))
    assert path.read_text() != text
    message = refusal(with_value(toy.config(), "generator.path", str(folder)))
    assert "hidden_size 32" in message
    assert "cross_attention_dim 48" in message


@pytest.mark.parametrize("stages", [("nonsense",), ("learn", "Sample"), ()])
def test_unknown_stage(toy, tmp_path, stages):
    with pytest.raises(UserError) as caught:
        pipeline.run(toy.config(), tmp_path / "run", stages)
    message = str(caught.value)
    assert message.startswith("--stages names ")
    assert "learn, sample, decode, train, evaluate, report" in message
    assert not (tmp_path / "run").exists()
