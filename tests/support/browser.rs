//! Pictures in headless Chromium, driven by the scripts in `tests/browser`.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a script of `tests/browser` saw of a file; `None`, visibly, where there is no browser.
pub fn look(script: &str, file: &Path) -> Option<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let has_browser = root.join("target/browser/node_modules/playwright-core").exists()
        && Command::new("chromium")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok();
    if !has_browser {
        let message = "no browser: run tests/browser/fetch";
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("SKIPPED for want of a browser: {message}");
        return None;
    }
    let output =
        Command::new("node").arg(root.join("tests/browser").join(script)).arg(file).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    for harm in ["dialogs", "errors", "requests"] {
        assert_eq!(seen[harm].as_array().map(Vec::len), Some(0), "{harm}: {}", seen[harm]);
    }
    Some(seen)
}
