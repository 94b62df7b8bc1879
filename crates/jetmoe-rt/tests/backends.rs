//! Every backend on a graph small enough to read, see `fixtures/make_toy.py`.

#![cfg(any(feature = "ort", feature = "tract"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use jetmoe_artifact::{Artifact, OutputName};
use jetmoe_rt::{
    BACKEND_NAMES, Backend, BackendError, CancellationToken, Error, ErrorKind, GraphSession, GraphSource,
    LoadOptions, LogitsToKeep, Model, OnnxError, StepInputs, TensorMap, TokenBatch, backend, backends,
};
use ndarray::{Array2, ArrayD, array, s};

/// The toy has no long sums: the backends differ in the order of a few additions.
const SAME: f32 = 1e-5;

fn toy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/toy")
}

fn load(folder: &Path, backend: &'static dyn Backend) -> Result<Model, Error> {
    // the toy is not the exporter's
    Model::load(folder, &LoadOptions::default().with_trust_graph(true).with_backend(backend))
}

fn toy_model(backend: &'static dyn Backend) -> Model {
    load(&toy(), backend).unwrap()
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What the Python package of ONNX Runtime computed.
struct Expected {
    prompt: Vec<u32>,
    /// `[tokens, vocab_size]`
    logits: Vec<Vec<f32>>,
    /// `[kv_heads, tokens, kv_channels]`
    key: Vec<Vec<Vec<f32>>>,
}

fn expected() -> Expected {
    let text = std::fs::read_to_string(toy().join("expected.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let field = |name: &str| json[name].clone();
    Expected {
        prompt: serde_json::from_value(field("prompt")).unwrap(),
        logits: serde_json::from_value(field("logits")).unwrap(),
        key: serde_json::from_value(field("key")).unwrap(),
    }
}

fn prompt() -> TokenBatch {
    TokenBatch::left_padded(&[expected().prompt], 0).unwrap()
}

fn assert_same(found: &ArrayD<f32>, expected: &ArrayD<f32>) {
    assert_eq!(found.shape(), expected.shape());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= SAME, "{found} is not {expected}");
    }
}

fn flat_shape(values: Vec<f32>, shape: &[usize]) -> ArrayD<f32> {
    ArrayD::from_shape_vec(shape, values).unwrap()
}

#[test]
fn a_backend_computes_what_the_python_package_does() {
    let expected = expected();
    let tokens = expected.prompt.len();
    let logits = flat_shape(expected.logits.concat(), &[1, tokens, 11]);
    let key = flat_shape(expected.key.concat().concat(), &[1, 2, tokens, 4]);
    for &backend in backends() {
        let mut session = toy_model(backend).session().unwrap();
        let output = session.step(&prompt()).unwrap();
        assert_same(output.get(OutputName::Logits).unwrap(), &logits);
        assert_same(&session.cache().unwrap()[&OutputName::PresentKey(0)], &key);
    }
}

/// The file may be replaced between the check of the graph and its load.
#[test]
fn a_backend_loads_the_graph_that_was_read() {
    let folder = tempfile::tempdir().unwrap();
    jetmoe_testing::files::copy_folder(&toy(), folder.path());
    let artifact = Artifact::open(folder.path()).unwrap();
    let record = artifact.graph(None, None).unwrap();
    let source = GraphSource::read(&artifact, record).unwrap();
    let expected = toy_model(backends()[0]).session().unwrap().step(&prompt()).unwrap();
    std::fs::write(&source.path, "another graph").unwrap();
    for &backend in backends() {
        let graph = backend.load(&source, &LoadOptions::default()).unwrap();
        let generation_config = artifact.generation_config(record.task).unwrap();
        let model = Model::from_graph(graph, artifact.config().clone(), record.task, None, generation_config);
        let found = model.session().unwrap().step(&prompt()).unwrap();
        assert_same(found.get(OutputName::Logits).unwrap(), expected.get(OutputName::Logits).unwrap());
    }
    assert!(GraphSource::read(&artifact, record).is_err());
}

#[test]
fn one_token_at_a_time_gives_the_logits_of_all_at_once() {
    for &backend in backends() {
        let model = toy_model(backend);
        let whole = model.session().unwrap().step(&prompt()).unwrap();
        let mut session = model.session().unwrap();
        for (index, id) in expected().prompt.iter().enumerate() {
            assert_eq!(session.past_length(), index);
            let step = session.step(&TokenBatch::next_tokens(&[*id])).unwrap();
            let of_whole = whole.logits().unwrap().slice(s![.., index..=index, ..]).to_owned();
            assert_same(&step.logits().unwrap().to_owned().into_dyn(), &of_whole.into_dyn());
        }
    }
}

#[test]
fn sequences_of_a_left_padded_batch_do_not_see_each_other_or_the_padding() {
    let sequences: [&[u32]; 3] = [&[3, 1, 4, 1, 5], &[9], &[2, 6]];
    for &backend in backends() {
        let model = toy_model(backend);
        let mut together = model.session().unwrap();
        let batch = TokenBatch::left_padded(&sequences, 0).unwrap();
        let prompts = together.step(&batch).unwrap();
        let nexts = together.step(&TokenBatch::next_tokens(&[7, 8, 10])).unwrap();
        for (row, (sequence, next)) in sequences.iter().zip([7, 8, 10]).enumerate() {
            let mut alone = model.session().unwrap();
            let prompt = alone.step(&TokenBatch::left_padded(&[sequence], 0).unwrap()).unwrap();
            let found = prompts.last_logits(row).unwrap().to_owned().into_dyn();
            assert_same(&found, &prompt.last_logits(0).unwrap().to_owned().into_dyn());
            let step = alone.step(&TokenBatch::next_tokens(&[next])).unwrap();
            let found = nexts.last_logits(row).unwrap().to_owned().into_dyn();
            assert_same(&found, &step.last_logits(0).unwrap().to_owned().into_dyn());
        }
    }
}

#[test]
fn sessions_of_one_model_have_their_own_caches() {
    for &backend in backends() {
        let model = toy_model(backend);
        let (mut first, mut second) = (model.session().unwrap(), model.session().unwrap());
        first.step(&prompt()).unwrap();
        second.step(&TokenBatch::next_tokens(&[2])).unwrap();
        assert_eq!(first.cache().unwrap()[&OutputName::PresentValue(0)].shape(), [1, 2, 5, 4]);
        assert_eq!(second.cache().unwrap()[&OutputName::PresentValue(0)].shape(), [1, 2, 1, 4]);
    }
}

#[test]
fn sessions_run_from_several_threads() {
    for &backend in backends() {
        let model = toy_model(backend);
        let alone = model.session().unwrap().step(&prompt()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        assert_eq!(model.session().unwrap().step(&prompt()).unwrap(), alone);
                    }
                });
            }
        });
    }
}

fn inputs(input_ids: Array2<i64>, past: usize) -> StepInputs {
    let (batch, tokens) = input_ids.dim();
    StepInputs {
        attention_mask: Array2::ones((batch, past + tokens)),
        position_ids: Array2::from_shape_fn((batch, tokens), |(_, token)| (past + token) as i64),
        input_ids,
        logits: LogitsToKeep::All,
        cancellation: CancellationToken::new(),
    }
}

fn start(model: &Model) -> (Box<dyn GraphSession>, TensorMap) {
    let mut session = model.graph().start().unwrap();
    session.run(&inputs(array![[3, 1]], 0)).unwrap();
    let cache = session.cache().unwrap();
    (session, cache)
}

#[test]
fn a_failed_run_leaves_the_cache_as_it_was() {
    let unlike_the_cache = inputs(array![[4], [4]], 2);
    let mut unlike_the_mask = inputs(array![[4]], 2);
    unlike_the_mask.attention_mask = Array2::ones((1, 9));
    let beyond_the_vocabulary = inputs(array![[1_000]], 2);
    for &backend in backends() {
        let model = toy_model(backend);
        for wrong in [&unlike_the_cache, &unlike_the_mask, &beyond_the_vocabulary] {
            let (mut session, cache) = start(&model);
            let error = session.run(wrong).unwrap_err();
            assert!(matches!(error, BackendError::Run { .. }), "{error}");
            assert_eq!(session.cache().unwrap(), cache);
            session.run(&inputs(array![[4]], 2)).unwrap();
        }
    }
}

#[test]
fn the_cache_is_empty_before_the_first_step() {
    for &backend in backends() {
        assert!(toy_model(backend).session().unwrap().cache().unwrap().is_empty());
    }
}

#[test]
fn a_backend_says_its_name_and_version() {
    for &backend in backends() {
        let said = toy_model(backend).backend();
        let version = said.strip_prefix(&format!("{} ", backend.name())).unwrap();
        assert_eq!(version.split('.').filter_map(|part| part.parse::<u32>().ok()).count(), 3, "{said}");
    }
}

/// A copy of the toy whose files can be damaged.
fn copy_of_toy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("onnx")).unwrap();
    for file in ["config.json", "jetmoe.json", "onnx/model.onnx", "onnx/model.onnx_data"] {
        std::fs::copy(toy().join(file), folder.path().join(file)).unwrap();
    }
    folder
}

/// Loads a graph that was intact when it was read and is damaged afterwards.
fn assert_refuses_to_load(damage: impl Fn(&mut GraphSource<'_>), backend: &'static dyn Backend) -> String {
    let folder = copy_of_toy();
    let artifact = Artifact::open(folder.path()).unwrap();
    let mut source = GraphSource::read(&artifact, artifact.graph(None, None).unwrap()).unwrap();
    damage(&mut source);
    match backend.load(&source, &LoadOptions::default()).unwrap_err() {
        BackendError::Load { backend: found, graph, source } => {
            assert_eq!(found, backend.name());
            assert!(graph.ends_with("onnx/model.onnx"), "{}", graph.display());
            chain(&*source)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_is_no_graph_is_refused() {
    let texts: [&[u8]; 3] = [b"", b"this is no graph", &[0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f]];
    for &backend in backends() {
        for text in texts {
            assert_refuses_to_load(|source| source.graph = text.to_vec(), backend);
        }
    }
}

#[test]
fn a_truncated_graph_is_refused() {
    for &backend in backends() {
        assert_refuses_to_load(|source| source.graph.truncate(source.graph.len() / 2), backend);
    }
}

#[test]
fn weights_that_are_missing_or_too_short_are_refused() {
    for &backend in backends() {
        let message = assert_refuses_to_load(|source| std::fs::remove_file(&source.data).unwrap(), backend);
        assert!(message.contains("model.onnx_data"), "{message}");
        assert_refuses_to_load(|source| std::fs::write(&source.data, [0; 64]).unwrap(), backend);
    }
}

#[test]
fn a_graph_that_is_not_what_the_configuration_says_is_refused() {
    for &backend in backends() {
        let folder = copy_of_toy();
        let config = folder.path().join("config.json");
        let text = std::fs::read_to_string(&config).unwrap();
        let two_layers = text.replace("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 2");
        assert_ne!(text, two_layers);
        std::fs::write(&config, &two_layers).unwrap();
        let manifest = folder.path().join("jetmoe.json");
        let digest = |text: &str| jetmoe_checkpoint::Digest::of_bytes(text.as_bytes()).to_string();
        let recorded = std::fs::read_to_string(&manifest).unwrap();
        std::fs::write(&manifest, recorded.replace(&digest(&text), &digest(&two_layers))).unwrap();
        let message = chain(&load(folder.path(), backend).unwrap_err());
        assert!(message.contains("past_key_values.1.key, past_key_values.1.value"), "{message}");
    }
}

#[test]
fn a_graph_of_another_exporter_is_refused_before_a_backend_loads_it() {
    for &backend in backends() {
        let error = Model::load(toy(), &LoadOptions::default().with_backend(backend)).unwrap_err();
        assert!(matches!(&error, Error::Graph(OnnxError::Unexpected { .. })), "{error}");
        assert_eq!(error.kind(), ErrorKind::InvalidModel);
    }
}

#[test]
fn no_thread_is_too_few() {
    for &backend in backends() {
        let options = LoadOptions::default().with_trust_graph(true).with_backend(backend).with_threads(0);
        let error = Model::load(toy(), &options).unwrap_err();
        assert_eq!(error.to_string(), "threads is 0, expected at least 1");
        let options = options.with_threads(1);
        Model::load(toy(), &options).unwrap().session().unwrap().step(&prompt()).unwrap();
    }
}

#[test]
fn a_backend_that_is_not_built_in_says_how_to_build_it() {
    let is_missing = |name: &&&str| backends().iter().all(|backend| backend.name() != **name);
    for name in BACKEND_NAMES.iter().filter(is_missing) {
        let message = backend(name).unwrap_err().to_string();
        assert!(message.contains(&format!("cargo feature `{name}`")), "{message}");
    }
}
