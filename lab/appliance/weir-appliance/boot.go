package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"weir/lab/appliance/seed"
)

const (
	stateDir   = "/var/lib/weir-appliance"
	weirConfig = "/etc/weir/weir.yaml"
)

// say tells the operator: standard error is the journal and the console.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// boot applies the seed: of the disk if there is one, else as it was when there was
// one, and over it what the kernel's command line has. It fails if anything of it did
// not work, when all else has been done.
func boot() error {
	kept := filepath.Join(stateDir, "seed")
	files, from, err := fromDisk()
	var errs []error
	switch {
	case err != nil:
		errs = append(errs, err)
		fallthrough
	case files == nil:
		if files, err = seed.ReadDir(kept); err != nil {
			errs = append(errs, err)
		}
		if from = "no seed disk"; len(files) > 0 {
			from = "no seed disk, using what the last one said"
		}
	default:
		if err := files.WriteDir(kept); err != nil {
			errs = append(errs, err)
		}
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	more, err := seed.FromCommandLine(string(line))
	if err != nil {
		errs = append(errs, err)
	}
	if files == nil {
		files = make(seed.Files)
	}
	for name, text := range more {
		files[name] = text
		from += ", " + name + " from the kernel command line"
	}
	say("seed: %s", from)

	settings, err := seed.Parse(files)
	errs = append(errs, err, seed.Rename(settings.Links, say))
	box := seed.Box{Root: "/", State: stateDir, Check: checkConfig, Say: say}
	errs = append(errs, box.Apply(&settings))
	if settings.Hostname != "" {
		errs = append(errs, unix.Sethostname([]byte(settings.Hostname)))
	}
	return errors.Join(errs...)
}

// fromDisk returns the files of the seed disk, nil without one. The label is cidata by
// the format; FAT has it in capitals.
func fromDisk() (seed.Files, string, error) {
	for _, label := range []string{"cidata", "CIDATA"} {
		device, err := filepath.EvalSymlinks("/dev/disk/by-label/" + label)
		if err != nil {
			continue
		}
		dir, undo, err := mount(device, unix.MS_RDONLY, "iso9660", "vfat")
		if err != nil {
			return nil, "", fmt.Errorf("seed disk: %w", err)
		}
		files, err := seed.ReadDir(dir)
		if err := errors.Join(err, undo()); err != nil {
			return nil, "", err
		}
		return files, "disk " + device, nil
	}
	return nil, "", nil
}

// mount puts a device into a folder of its own, with the first of the file systems that
// it takes.
func mount(device string, flags uintptr, kinds ...string) (dir string, undo func() error, err error) {
	if err := os.MkdirAll("/run/weir-appliance", 0o700); err != nil {
		return "", nil, err
	}
	if dir, err = os.MkdirTemp("/run/weir-appliance", "mnt-"); err != nil {
		return "", nil, err
	}
	for _, kind := range kinds {
		if err = unix.Mount(device, dir, kind, flags|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err == nil {
			return dir, func() error { return errors.Join(unix.Unmount(dir, 0), os.Remove(dir)) }, nil
		}
	}
	return "", nil, errors.Join(fmt.Errorf("mount %s as %s: %w", device, strings.Join(kinds, " or "), err), os.Remove(dir))
}

// checkConfig has weir say what is wrong with a file.
func checkConfig(path string) error {
	out, err := exec.Command("weir", "check", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("weir check: %w\n%s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// configured fails if weir's configuration is as the package has it, comments only: weir
// would refuse it, and be started again every second.
func configured() error { return saysAnything(weirConfig) }

func saysAnything(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return nil
		}
	}
	return fmt.Errorf("%s says nothing yet; weir starts when it does: systemctl start weir", path)
}
