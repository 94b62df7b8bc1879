use jetmoe_checkpoint::{Error, additional_chat_templates, names, tokenizer_files};

#[test]
fn the_files_of_a_tokenizer_are_listed_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(tokenizer_files(folder.path()).unwrap(), [""; 0]);
    let templates = folder.path().join("additional_chat_templates");
    std::fs::create_dir_all(templates.join("folder")).unwrap();
    for file in ["tokenizer.model", "tokenizer.json", "config.json", "vocab.txt"] {
        std::fs::write(folder.path().join(file), "").unwrap();
    }
    for file in ["tool_use.jinja", "rag.jinja", "notes.txt", "folder/deep.jinja"] {
        std::fs::write(templates.join(file), "").unwrap();
    }
    assert_eq!(
        tokenizer_files(folder.path()).unwrap(),
        [
            "tokenizer.json",
            "tokenizer.model",
            "additional_chat_templates/rag.jinja",
            "additional_chat_templates/tool_use.jinja"
        ]
    );
    assert_eq!(names::additional_chat_template("additional_chat_templates/rag.jinja"), Some("rag"));
    for other in ["additional_chat_templates/a/b.jinja", "additional_chat_templates/a.txt", "rag.jinja"] {
        assert_eq!(names::additional_chat_template(other), None, "{other}");
    }
}

/// Permissions would not do: a superuser may read everything.
#[test]
fn a_folder_of_templates_that_cannot_be_read_is_an_error_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let templates = folder.path().join("additional_chat_templates");
    std::fs::write(&templates, "a file").unwrap();
    for result in [tokenizer_files(folder.path()), additional_chat_templates(folder.path())] {
        let error = result.unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if *path == templates), "{error}");
        assert!(error.to_string().contains("additional_chat_templates"), "{error}");
    }
}
