export function Logo() {
  return (
    <svg class="logo" viewBox="0 0 32 32" aria-hidden="true">
      <circle cx="16" cy="16" r="13" fill="none" stroke="currentColor" stroke-width="4" />
      <path d="M16 3a13 13 0 0 1 0 26z" fill="currentColor" />
    </svg>
  );
}
