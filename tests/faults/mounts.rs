//! File systems over the folder of a trial.

use std::process::{Command, Stdio};

use crate::trial::Trial;

/// A file system over the folder of a trial.
pub struct Mounted<'a>(&'a Trial<'a>);

impl<'a> Mounted<'a> {
    /// `None` where this user may not mount it.
    pub fn new(trial: &'a Trial<'a>, kind: &str) -> Option<Mounted<'a>> {
        let work = trial.work();
        let mut mount = Command::new("mount");
        match kind {
            "ramfs" => mount.args(["-t", "ramfs", "ramfs"]).arg(&work),
            "tmpfs" => mount.args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(&work),
            _ => {
                // The upper layer of an overlay cannot be one itself, so it lies on a tmpfs.
                let base = trial.base();
                let script = format!(
                    "mount -t tmpfs -o size=64m tmpfs {base} && mkdir {base}/lower {base}/upper {base}/own && \
                     mount -t overlay -o lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/own overlay {work}",
                    base = base.display(),
                    work = work.display()
                );
                mount = Command::new("sh");
                mount.args(["-c", &script])
            }
        };
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        let mount = Mounted(trial);
        mounted.then_some(mount)
    }

    /// Sets the size of a tmpfs.
    pub fn resize(&self, size: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size={size}")]).arg(self.0.work());
        assert!(mount.status().is_ok_and(|status| status.success()));
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        for folder in [self.0.work(), self.0.base()] {
            let _ = Command::new("umount").arg(folder).stderr(Stdio::null()).status();
        }
    }
}
