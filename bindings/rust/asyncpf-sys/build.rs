// SPDX-License-Identifier: Apache-2.0
//! Tells the linker where libasyncpf.so is: in the folder ASYNCPF_LIB_DIR if that is set, else
//! where pkg-config (or $PKG_CONFIG) says.
use std::env;
use std::process::{exit, Command};

fn fail(why: &str) -> ! {
    eprintln!("asyncpf-sys: {why}; set ASYNCPF_LIB_DIR to the folder of libasyncpf.so");
    exit(1);
}

fn pkg_config() -> String {
    let program = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    match Command::new(&program).args(["--libs", "asyncpf"]).output() {
        Err(e) => fail(&format!("{program}: {e}")),
        Ok(done) if !done.status.success() => fail(&format!(
            "{program}: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        )),
        Ok(done) => String::from_utf8_lossy(&done.stdout).into_owned(),
    }
}

fn main() {
    for name in ["ASYNCPF_LIB_DIR", "PKG_CONFIG", "PKG_CONFIG_PATH"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    if let Ok(folder) = env::var("ASYNCPF_LIB_DIR") {
        println!("cargo:rustc-link-search=native={folder}");
        println!("cargo:rustc-link-lib=dylib=asyncpf");
        return;
    }
    for word in pkg_config().split_whitespace() {
        if let Some(folder) = word.strip_prefix("-L") {
            println!("cargo:rustc-link-search=native={folder}");
        } else if let Some(library) = word.strip_prefix("-l") {
            println!("cargo:rustc-link-lib=dylib={library}");
        }
    }
}
