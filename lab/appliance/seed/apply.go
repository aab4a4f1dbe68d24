package seed

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Box is the system that settings are applied to. Its /etc is a copy in memory that
// begins as the image has it with every boot, but for /etc/weir, which stays.
type Box struct {
	Root  string // "/", or a folder in tests
	State string // folder that stays, for what has been applied

	// Check says what is wrong with a configuration of weir, nil if nothing is.
	Check func(path string) error

	// Say gets what the operator should see.
	Say func(format string, args ...any)
}

// Apply writes the settings to where the services of the image read them. Each of them
// is tried, whatever becomes of the others.
//
// Files in /etc/weir belong to two: the seed and whoever logs in and edits them. What
// is newer counts: a file of the seed is written when it is another than the one that
// the seed had the last time, and one that has been edited since then stays. A
// weir.yaml that has mistakes is not written, and the one that is there stays.
func (b *Box) Apply(s *Settings) error {
	for _, text := range s.Ignored {
		b.Say("ignored: %s", text)
	}
	var errs []error
	for _, step := range []func(*Settings) error{b.hostname, b.keys, b.password, b.ntp, b.network, b.files} {
		errs = append(errs, step(s))
	}
	return errors.Join(errs...)
}

func (b *Box) path(name string) string { return filepath.Join(b.Root, name) }

func (b *Box) write(name, text string, mode os.FileMode) error {
	path := b.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("apply seed: %w", err)
	}
	if err := replace(path, []byte(text), mode); err != nil {
		return fmt.Errorf("apply seed: write %s: %w", name, err)
	}
	return nil
}

func (b *Box) hostname(s *Settings) error {
	if s.Hostname == "" {
		return nil
	}
	return errors.Join(
		b.write("/etc/hostname", s.Hostname+"\n", 0o644),
		b.write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 "+s.Hostname+"\n", 0o644))
}

func (b *Box) keys(s *Settings) error {
	if len(s.Keys) == 0 {
		b.Say("no SSH key for root: nobody can log in by SSH")
		return nil
	}
	return b.write("/etc/ssh/authorized_keys/root", strings.Join(s.Keys, "\n")+"\n", 0o644)
}

// password puts the hash into shadow(5). It is for the console: sshd takes keys only.
func (b *Box) password(s *Settings) error {
	if s.Password == "" {
		return nil
	}
	const name = "/etc/shadow"
	text, err := os.ReadFile(b.path(name))
	if err != nil {
		return fmt.Errorf("apply seed: set password: %w", err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	for i, line := range lines {
		if fields := strings.Split(line, ":"); len(fields) > 2 && fields[0] == "root" {
			fields[1] = s.Password
			lines[i] = strings.Join(fields, ":")
			return b.write(name, strings.Join(lines, ""), 0o600)
		}
	}
	return fmt.Errorf("apply seed: set password: no root in %s", name)
}

// ntp has chrony use these servers, and not those of the image.
func (b *Box) ntp(s *Settings) error {
	if len(s.NTP) == 0 {
		return nil
	}
	var text strings.Builder
	for _, server := range s.NTP {
		fmt.Fprintf(&text, "server %s iburst\n", server)
	}
	if err := os.Remove(b.path("/etc/chrony/sources.d/weir-default.sources")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("apply seed: %w", err)
	}
	return b.write("/etc/chrony/sources.d/seed.sources", text.String(), 0o644)
}

func (b *Box) network(s *Settings) error {
	files := units(s.Links)
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(files)) {
		errs = append(errs, b.write(filepath.Join("/etc/systemd/network", name), files[name], 0o644))
	}
	return errors.Join(errs...)
}

// applied is what the seed's files were when they were written, by path.
type applied map[string]string

func (b *Box) files(s *Settings) error {
	memory := filepath.Join(b.State, "applied.json")
	before := make(applied)
	if text, err := os.ReadFile(memory); err == nil {
		if err := json.Unmarshal(text, &before); err != nil {
			b.Say("%s: %v: taking all files of the seed for new", memory, err)
		}
	}
	after := make(applied)
	var errs []error
	for _, f := range s.Files {
		sum := sha256.Sum256(f.Text)
		hash := hex.EncodeToString(sum[:])
		if before[f.Path] == hash {
			after[f.Path] = hash
			continue
		}
		if err := b.file(f); err != nil {
			errs = append(errs, err)
			continue
		}
		after[f.Path] = hash
	}
	text, err := json.MarshalIndent(after, "", "\t")
	if err == nil {
		err = replace(memory, text, 0o600)
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("apply seed: %w", err))
	}
	return errors.Join(errs...)
}

// file writes one below /etc/weir, with the mode and group of that folder: it may have
// keys in it. What was there before is kept beside it.
func (b *Box) file(f File) error {
	path := b.path(f.Path)
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("apply seed: %w", err)
	}
	if string(old) == string(f.Text) && err == nil {
		return nil
	}
	if filepath.Base(f.Path) == WeirYAML && b.Check != nil {
		candidate := path + ".seed"
		if err := b.owned(candidate, f.Text); err != nil {
			return err
		}
		if err := b.Check(candidate); err != nil {
			return fmt.Errorf("the seed's %s is not taken, what was there stays: %w", WeirYAML, err)
		}
		if err := os.Remove(candidate); err != nil {
			return fmt.Errorf("apply seed: %w", err)
		}
	}
	if err == nil {
		if err := b.owned(path+".before", old); err != nil {
			return err
		}
	}
	b.Say("%s is the seed's", f.Path)
	return b.owned(path, f.Text)
}

// owned writes a file that the folder's group may read and nobody else.
func (b *Box) owned(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return fmt.Errorf("apply seed: %w", err)
	}
	if err := replace(path, text, 0o640); err != nil {
		return fmt.Errorf("apply seed: write %s: %w", path, err)
	}
	gid, err := group(filepath.Dir(path))
	if err == nil {
		err = os.Chown(path, -1, gid)
	}
	if err != nil {
		return fmt.Errorf("apply seed: %w", err)
	}
	return nil
}
