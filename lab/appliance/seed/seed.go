// Package seed reads what an appliance is told when it boots: a disk in the layout
// of cloud-init's NoCloud, or the same files on the kernel's command line.
//
// The problem it solves: every hypervisor can hand a virtual machine a small disk with
// user-data, meta-data and network-config on it, and people have tools that make one.
// cloud-init, which reads it elsewhere, brings Python, takes seconds of each boot, and
// changes whatever it is asked to. An appliance has a dozen settings. So this reads the
// part of the format that says those, names every key that it does not know instead of
// leaving its author to wonder, and writes them to where they belong.
//
// The format is that of cloud-init's documentation: the NoCloud data source, the modules
// of cloud-config that are named in [Settings], and network-config of versions 1 and 2.
package seed

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Names of the files, on the disk and on the command line.
const (
	MetaData      = "meta-data"
	UserData      = "user-data"
	NetworkConfig = "network-config"
	WeirYAML      = "weir.yaml" // no part of cloud-init's format: weir's own configuration
)

// maxFile bounds each file, in bytes, as it is unpacked.
const maxFile = 4 << 20

// Files are the contents by name.
type Files map[string][]byte

func names() []string { return []string{MetaData, UserData, NetworkConfig, WeirYAML} }

// ReadDir returns those files that a folder has.
func ReadDir(dir string) (Files, error) {
	files := make(Files)
	for _, name := range names() {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read seed: %w", err)
		}
		text, err := limited(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("read seed: %s: %w", name, err)
		}
		files[name] = text
	}
	return files, nil
}

// WriteDir writes the files to a folder that has no others, so that an appliance knows
// them when the disk is gone. A power cut leaves each either as it was or as it is to be.
func (files Files) WriteDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep seed: %w", err)
	}
	for _, name := range names() {
		path := filepath.Join(dir, name)
		text, ok := files[name]
		if !ok {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("keep seed: %w", err)
			}
			continue
		}
		if err := replace(path, text, 0o600); err != nil {
			return fmt.Errorf("keep seed: %w", err)
		}
	}
	return nil
}

// FromCommandLine returns the files that a kernel command line has, as
// weir.NAME=BASE64, packed by gzip or not:
//
//	weir.user-data=I2Nsb3VkLWNvbmZpZwo= weir.weir.yaml=H4sIA...
//
// It may be of 2048 bytes at most on amd64 (COMMAND_LINE_SIZE).
func FromCommandLine(line string) (Files, error) {
	files := make(Files)
	for _, word := range strings.Fields(line) {
		for _, name := range names() {
			value, ok := strings.CutPrefix(word, "weir."+name+"=")
			if !ok {
				continue
			}
			text, err := base64.StdEncoding.DecodeString(strings.Trim(value, `"`))
			if err == nil && bytes.HasPrefix(text, []byte{0x1f, 0x8b}) { // RFC 1952, section 2.3.1
				text, err = gunzip(text)
			}
			if err != nil {
				return nil, fmt.Errorf("kernel command line: weir.%s: %w; want base64", name, err)
			}
			files[name] = text
		}
	}
	return files, nil
}

func gunzip(packed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return limited(r)
}

func limited(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("longer than %d bytes", maxFile)
	}
	return text, err
}

// replace writes a file that is never there in part.
func replace(path string, text []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err == nil {
		err = errors.Join(f.Chmod(mode), f.Sync())
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
