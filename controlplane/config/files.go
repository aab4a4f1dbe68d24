package config

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxSecret is the largest file that another one may name, in bytes.
const maxSecret = 1 << 20

// parseFile accepts the absolute path of a file that can be read: weir may be
// started, and asked to check a file, in different directories.
func parseFile(path string) (string, string) {
	_, problem := readFile(path)
	return path, problem
}

// readFile returns what is in a regular file, or what is wrong with it. What a
// file contains never gets into an error: it may be a secret.
func readFile(path string) ([]byte, string) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Sprintf("%s is not an absolute path; want one, as /etc/weir/key", quote(path))
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Sprintf("%s is not a file", quote(path))
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Sprintf("%s cannot be read: %v", quote(path), bare(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return nil, fmt.Sprintf("%s cannot be read: %v", quote(path), bare(err))
	case len(data) > maxSecret:
		return nil, fmt.Sprintf("%s is larger than %d KiB; that cannot be it", quote(path), maxSecret>>10)
	}
	return data, ""
}

// bare is err without the path, which is quoted next to it.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// maxPassword is how long a password of TCP MD5 can be in Linux, in bytes
// (TCP_MD5SIG_MAXKEYLEN); RFC 2385 section 4.5 asks for as much.
const maxPassword = 80

func parsePassword(text string) (string, string) {
	if text == "" || len(text) > maxPassword || bytes.ContainsAny([]byte(text), "\x00\n\r") {
		return "", fmt.Sprintf("is %d bytes long; want 1 to %d, on one line", len(text), maxPassword)
	}
	return text, ""
}

// parsePasswordFile returns the password in the file at path, less the end of
// its line.
func parsePasswordFile(path string) (string, string) {
	data, problem := readFile(path)
	if problem != "" {
		return "", problem
	}
	password, problem := parsePassword(string(bytes.TrimRight(data, "\r\n")))
	if problem != "" {
		return "", fmt.Sprintf("the password in %s %s", quote(path), problem)
	}
	return password, ""
}

const wantKey = "16, 24 or 32 random bytes in base64, the same on all nodes, as `openssl rand -base64 32` prints them"

func parseKey(text string) ([]byte, string) {
	key, err := base64.StdEncoding.DecodeString(text)
	switch {
	case err != nil:
		return nil, "is not base64; want " + wantKey
	case len(key) != 16 && len(key) != 24 && len(key) != 32:
		return nil, fmt.Sprintf("is %d bytes in base64; want %s", len(key), wantKey)
	}
	return key, ""
}

func parseKeyFile(path string) ([]byte, string) {
	data, problem := readFile(path)
	if problem != "" {
		return nil, problem
	}
	key, problem := parseKey(string(bytes.TrimSpace(data)))
	if problem != "" {
		return nil, fmt.Sprintf("what is in %s %s", quote(path), problem)
	}
	return key, ""
}

// parseCA accepts a file with at least one certificate.
func parseCA(path string) (string, string) {
	data, problem := readFile(path)
	if problem == "" && !x509.NewCertPool().AppendCertsFromPEM(data) {
		problem = fmt.Sprintf("%s has no certificate; want PEM, that begins with -----BEGIN CERTIFICATE-----", quote(path))
	}
	return path, problem
}

// keyPair returns what is wrong with a certificate and its key.
func keyPair(certificate, key string) string {
	c, problem := readFile(certificate)
	if problem != "" {
		return problem
	}
	k, problem := readFile(key)
	if problem != "" {
		return problem
	}
	if _, err := tls.X509KeyPair(c, k); err != nil {
		return fmt.Sprintf("%s and the key %s cannot be used: %v", quote(certificate), quote(key), err)
	}
	return ""
}
