//! Tests of the configuration.

use std::fs;

use super::*;

fn sources() -> ConfigSources {
    ConfigSources::new().with_text("models.mini.folder", "somewhere")
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn settings_are_over_the_environment_and_that_is_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serve.toml");
    let text = "listen = '127.0.0.1:1'\n[limits]\nbody_bytes = 1\nrequests = 1\nsequences = 1\n";
    fs::write(&file, text).unwrap();
    let environment =
        [("JETMOE_SERVE_LIMITS__BODY_BYTES", "2"), ("JETMOE_SERVE_LIMITS__REQUESTS", "2"), ("HOME", "/")];
    let config = sources()
        .with_file(file)
        .with_environment(variables(&environment))
        .with_setting("limits.body_bytes", "3")
        .read()
        .unwrap();
    assert_eq!((config.limits.body_bytes, config.limits.requests, config.limits.sequences), (3, 2, 1));
    assert_eq!(config.listen.port(), 1);
    assert_eq!(config.limits.connections, Limits::default().connections);
}

#[test]
fn the_printed_configuration_is_read_as_the_same_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serve.toml");
    let config = sources()
        .with_setting("models.mini.precision", "q4")
        .with_setting("models.mini.device", "cuda:1")
        .with_setting("models.mini.aliases", "['a', 'b']")
        .with_setting("limits.request_seconds", "1.5")
        .with_text("tls.certificate", "cert.pem")
        .with_text("tls.key", "key.pem")
        .read()
        .unwrap();
    fs::write(&file, config.to_toml().unwrap()).unwrap();
    assert_eq!(ConfigSources::new().with_file(file).read().unwrap(), config);
}

#[test]
fn an_unknown_key_is_named_with_its_origin_and_the_nearest_one() {
    let error = sources().with_setting("limits.body_byte", "3").read().unwrap_err();
    let expected = "the setting limits.body_byte: there is no key limits.body_byte\n  the nearest one is limits.body_bytes";
    assert_eq!(error.to_string(), expected);
    let environment = variables(&[("JETMOE_SERVE_LISTN", "x")]);
    let error = sources().with_environment(environment).read().unwrap_err().to_string();
    assert!(
        error.starts_with("the environment variable JETMOE_SERVE_LISTN: there is no key listn\n"),
        "{error}"
    );
}

#[test]
fn a_value_that_is_not_valid_is_named() {
    let error = |key: &str, value: &str| sources().with_setting(key, value).read().unwrap_err().to_string();
    assert_eq!(error("limits.requests", "0"), "limits.requests is 0, expected at least 1");
    assert_eq!(error("models.mini.slots", "0"), "models.mini.slots is 0, expected at least 1");
    assert!(error("limits.header_seconds", "nan").starts_with("limits.header_seconds is NaN, expected"));
    assert!(error("models.mini.precision", "q9").contains("models.mini.precision: "));
    assert!(
        error("limits.requests", "many")
            .starts_with("the setting limits.requests: limits.requests: invalid type")
    );
    assert!(error("models.other.slots", "1").contains("models.other: missing field `folder`"));
    assert!(error("models.mini.backend", "onnx").contains("models.mini: unknown backend"));
}

#[test]
fn names_and_aliases_differ() {
    let error = sources().with_setting("models.mini.aliases", "['mini']").read().unwrap_err();
    assert_eq!(error.to_string(), "models is mini, expected names and aliases that differ");
}

#[test]
fn a_configuration_needs_a_model() {
    assert!(matches!(ConfigSources::new().read(), Err(ConfigError::NoModel)));
}
