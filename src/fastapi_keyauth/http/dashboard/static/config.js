// What the server says about the application around the page. It is public: the same for everyone, without data.

const known = JSON.parse(document.querySelector('meta[name="keyauth-page"]').content);

/** See DashboardOptions in Python. Paths are relative to the page, so mounts and proxies do not matter. */
export const config = Object.freeze({
  product: known.product,
  homePath: known.home_path,
  sessionItem: known.session_item,
  logInPath: known.log_in_path,
  logInForm: known.log_in_form,
  logInPage: known.log_in_page,
  logOutPath: known.log_out_path,
  userField: known.user_field,
  passwordField: known.password_field,
  tokenField: known.token_field,
  examplePath: known.example_path,
  dataPath: known.data_path,
});
